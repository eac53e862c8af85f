"""Runs trained side by side are the runs trained one after another."""

from pathlib import Path

from bmla.fuse.data import Features
from bmla.fuse.sweep import grid, run_sweep

SMALL = dict(layers=1, width=16, heads=2, epochs=1, finetune_epochs=1, lr=5e-3)
STREAMS = dict(audio="audio.arrays", visual="visual.arrays")


def weights(folder: Path) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in sorted(folder.glob("*/model.safetensors"))}


def test_two_processes_train_the_same_weights_as_one(features: Features, tmp_path: Path) -> None:
    configs = grid(["transformer-ao", "balancemla"], ["1:1"], [0, 1], **SMALL, **STREAMS)
    alone = run_sweep(configs, features, tmp_path / "alone")
    beside = run_sweep(configs, features, tmp_path / "beside", workers=2)
    assert weights(tmp_path / "alone") == weights(tmp_path / "beside")
    assert [r.config for r in alone] == [r.config for r in beside]
    assert [r.scores["test"]["accuracy"] for r in alone] == [r.scores["test"]["accuracy"] for r in beside]
