"""The protocol of AV-SUPERB from end to end, by the commands: published checkpoint, converted, three streams of all layers, probed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bmla.cli import main
from bmla.extract.upstreams.table import UPSTREAMS, avhubert
from bmla.fuse.run import Run, load_run
from bmla.store import open_store

TINY = (2, 16, 24, 8, 4, (4, 4, 6, 8))
STREAMS = ("audio.avhubert", "mouth.avhubert", "av.avhubert")


def do(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.fixture
def store(
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shapes_of_avhubert: Callable[..., Any],
    seeded_tensors: Callable[..., Any],
    omega: Any,
    save: Any,
) -> Path:
    """Six clips, three streams."""
    layers, width, inner, conv_pos, groups, trunk = TINY
    config = {"layers": layers, "width": width, "inner": inner, "conv_pos": conv_pos, "conv_pos_groups": groups}
    monkeypatch.setitem(UPSTREAMS, "avhubert-base", avhubert({**config, "trunk": trunk}, heads=4))
    content = {"model": seeded_tensors(shapes_of_avhubert(*TINY)), "cfg": omega({"task": {"normalize": True}})}
    published = save(content, tmp_path / "base_lrs3_iter5.pt")
    (tmp_path / "weights").mkdir()
    do(
        "weights",
        "convert",
        published,
        "--as",
        "avhubert-base",
        "--out",
        tmp_path / "weights/avhubert-base.safetensors",
    )
    path = tmp_path / "lrw.zarr"
    every = [word for stream in STREAMS for word in ("--layer", f"{stream}=all")]
    where = ("--dataset", "lrw", "--root", tree, "--store", path, "--weights", tmp_path / "weights")
    how = ("--mouth-box", "79,115,175,211", "--workers", 1, "--quiet")
    do("extract", *where, "--stream", ",".join(STREAMS), *every, *how)
    return path


def fused(store: Path, out: Path, *words: object) -> list[Run]:
    small = ("--epochs", 1, "--finetune-epochs", 0, "--workers", 1, "--threads", 1, "--quiet", "--out", out)
    do("fuse", "--store", store, *small, *words)
    return [load_run(path.parent) for path in sorted(out.glob("*/config.json"))]


def pooled(run: Run, modality: str, values: np.ndarray, valid: np.ndarray) -> torch.Tensor:
    """One clip's (t, k, l): the sum of its layers by their weights, projected, averaged over the valid steps."""
    kept = {k.removeprefix(f"{modality}."): v for k, v in run.model().state_dict().items() if k.startswith(modality)}
    shares = torch.exp(kept["weight"]) / torch.exp(kept["weight"]).sum()
    rows = []
    for step in torch.from_numpy(values[valid].astype(np.float32)):
        each = (step - kept["standardise.mean"]) / kept["standardise.std"]
        vector = sum(shares[k] * each[k] for k in range(len(shares)))
        rows.append(kept["project.weight"] @ vector + kept["project.bias"])
    assert kept["project.weight"].shape == (256, TINY[1])
    return torch.stack(rows).mean(0)


def test_a_published_checkpoint_is_converted_extracted_and_probed(store: Path, tmp_path: Path) -> None:
    opened = open_store(store)
    for stream in STREAMS:
        assert opened.spec(stream).feature_shape == (TINY[0] + 1, TINY[1])
        assert opened.spec(stream).weights["source"] == "base_lrs3_iter5.pt"
    assert {"mouth.avhubert", "av.avhubert"} == {s for s in STREAMS if opened.spec(s).crop}
    heard, seen, both = fused(
        store,
        tmp_path / "one",
        *("--model", "probe,probe-ao,probe-vo", "--audio", STREAMS[0], "--visual", STREAMS[1]),
    )
    (joint,) = fused(store, tmp_path / "two", "--model", "probe-ao", "--audio", STREAMS[2], "--probe-mean", "all")
    assert joint.config.probe_mean == "all"
    rows = {name: row for row, name in enumerate(opened.clips.column("id").tolist())}
    for run, streams in (
        (heard, {"audio": STREAMS[0]}),
        (seen, {"visual": STREAMS[1]}),
        (joint, {"audio": STREAMS[2]}),  # every step is valid here: both means are one
        (both, {"audio": STREAMS[0], "visual": STREAMS[1]}),
    ):
        state = run.model().state_dict()
        assert len(run.predictions.ids) == 2
        for name, answer in zip(run.predictions.ids.tolist(), run.predictions.result, strict=True):
            parts = []
            for modality, stream in streams.items():
                packed = opened.load(stream)
                place = int(np.flatnonzero(packed.clips == rows[name])[0])
                inside = slice(packed.offsets[place], packed.offsets[place + 1])
                parts.append(pooled(run, modality, packed.values[inside], packed.valid[inside]))
            expected = torch.log_softmax(state["head.weight"] @ torch.cat(parts) + state["head.bias"], 0)
            np.testing.assert_allclose(answer, expected.numpy(), atol=1e-4)
