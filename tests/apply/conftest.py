"""A tree of generated talking heads, a store of it, and runs of small models trained on the store."""

import os
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bmla.extract.datasets.base import seeded_split
from bmla.extract.derive import DeriveConfig, derive, read_derivation
from bmla.extract.extraction import extract
from bmla.extract.plan import ExtractConfig, make_plan
from bmla.extract.tools import ToolConfig
from bmla.fuse.condition import CLEAN
from bmla.fuse.data import features_from_store
from bmla.fuse.learner import clips_of
from bmla.fuse.lockstep import alone
from bmla.fuse.models.table import build, takes
from bmla.fuse.obtain import test as tested
from bmla.fuse.recipes import run_config
from bmla.fuse.run import Run, save_run
from bmla.fuse.training import Trained
from bmla.store import Store, open_store

SPEC = spec_from_file_location("clips_of_extract", Path(__file__).parent.parent / "extract" / "conftest.py")
clips = module_from_spec(SPEC)  # the talking heads of the tests of `extract`
SPEC.loader.exec_module(clips)
portrait, make_tree, tree, write = clips.portrait, clips.make_tree, clips.tree, clips.write

STREAMS = ("audio.logspec", "audio.logspec@white=0", "mouth.dct", "mouth.roi")
SMALL = dict(layers=1, width=16, heads=2, gru_units=8, front_width=2, resnet_depth=18, seed=3)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def quiet(*_: Any) -> None:
    """Progress that nobody sees."""


@pytest.fixture(scope="session")
def store(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Six clips in LRW's layout, with noise and with derived streams."""
    path = tmp_path_factory.mktemp("stores") / "lrw.zarr"
    extract(make_plan(ExtractConfig("lrw", tree, path, ToolConfig(STREAMS, noise_seed=7))), quiet, quiet)
    for how, streams in (
        ("standardise", ("audio.logspec", "mouth.dct")),
        ("pca:4", ("audio.logspec",)),
        ("subsample:2", ("audio.logspec.pca-4",)),
    ):
        derive(DeriveConfig(path, read_derivation(how), streams), quiet, quiet)
    return open_store(path)


@pytest.fixture(scope="session")
def make_run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A run of a model whose weights are drawn, not trained: its answers differ from clip to clip, which is all that is asked."""

    def make(model: str, audio: str = "audio.logspec", visual: str = "mouth.dct", **wishes: Any) -> Run:
        return drawn_run(store, tmp_path_factory.mktemp("runs"), model, audio, visual, **wishes)

    return make


def drawn_run(
    store: Store, out: Path, model: str, audio: str = "audio.logspec", visual: str = "mouth.dct", **wishes: Any
) -> Run:
    """A run on a store."""
    chosen = {m: s for m, s in (("audio", audio), ("visual", visual)) if m in takes(model)}
    features = features_from_store(store, chosen.get("audio"), chosen.get("visual"), models=[model])
    config = run_config(model, **{**SMALL, **chosen, **wishes})
    torch.manual_seed(config.seed)
    inputs = {m: features.stream(m).input for m in takes(model)}
    network = build(config, inputs, len(features.classes)).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # some begin at zero, where nothing would be seen of them
            parameter += 0.1 * torch.randn_like(parameter)
    clips = clips_of(features, "train", config)
    for modality in takes(model):
        network.set_statistics(modality, *features.stream(modality).statistics(clips))
    trained = Trained(network, [{"dev_accuracy": 0.5}], {"dev_accuracy": 0.5, "dev_loss": 1.0, "epoch": 1})
    results: dict[str, Any] = {"best": trained.best}
    for split in ("dev", "test"):
        asked = tested(network, config, features, clips_of(features, split, config), CLEAN)
        results[split], predictions = alone(asked)
    return save_run(out, config, features, trained, results, predictions, {"store": store.name})


@pytest.fixture(scope="session")
def make_grid_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """The same of the words of three sentences of GRID, with the store; whoever asks for it sees to the clips being there."""
    root = tmp_path_factory.mktemp("grid")
    source = Path(os.environ.get("BMLA_TEST_DATA") or Path(__file__).parents[3] / "shared") / "data" / "grid"
    found = sorted((source / "s1").glob("*.mpg"), reverse=True)
    files = {seeded_split(f"s1/{file.stem}", 0): file for file in found}.values()  # the first of each split
    for file in files:
        (root / "data" / "s1").mkdir(parents=True, exist_ok=True)
        (root / "data" / "s1" / file.name).symlink_to(file)
        (root / "data" / "alignments" / "s1").mkdir(parents=True, exist_ok=True)
        align = f"{file.stem}.align"
        (root / "data" / "alignments" / "s1" / align).symlink_to(source / "alignments" / "s1" / align)
    path = root / "words.zarr"
    tools = ToolConfig(("audio.logspec", "mouth.dct"))
    extract(make_plan(ExtractConfig("grid", root / "data", path, tools)), quiet, quiet)
    return drawn_run(open_store(path), root / "runs", "balancemla"), path


@pytest.fixture(scope="session")
def run(make_run: Callable[..., Run]) -> Run:
    """Of BalanceMLA, both modalities."""
    return make_run("balancemla")


@pytest.fixture(scope="session")
def blank() -> np.ndarray:
    """(29, 256, 256, 3): pictures without a face."""
    return np.full((29, 256, 256, 3), 90, np.uint8)
