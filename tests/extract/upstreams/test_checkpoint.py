"""Published checkpoints are read without running, importing or believing anything in them."""

import argparse
import os
import sys
import tarfile
import zipfile
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch

from bmla.extract.upstreams.checkpoint import read_checkpoint
from bmla.extract.weights import sha256_of
from bmla.store.errors import BmlaError, WeightsNotFound

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)}


class Choice(Enum):
    GELU = "gelu"


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def same(found: dict[str, torch.Tensor]) -> None:
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in TENSORS.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_and_settings_come_out_of_a_file_full_of_foreign_objects(
    tmp_path: Path, foreign: Any, omega: Any, save: Any, zipped: bool
) -> None:
    words = foreign("fairseq.data.dictionary", "Dictionary")()
    words.symbols = ["a", "b"]
    content = {
        "model": TENSORS,
        "cfg": omega({"model": {"layers": 12, "first": True, "kind": Choice.GELU}, "task": {"rate": 25.0}}),
        "task_state": {"dictionaries": [words], "kinds": {words.__class__, Choice}, "seen": {1, 2}},
    }
    found = read_checkpoint(save(content, tmp_path / "a.pt", zipped))
    same(found.tensors)
    assert found.name == "a.pt"
    assert found.sha256 == sha256_of(tmp_path / "a.pt")
    assert [found.setting("model", key) for key in ("layers", "first", "kind")] == [12, True, "gelu"]
    assert found.setting("task", "rate") == 25.0
    assert found.setting("model") is found.setting("model", "other") is found.setting("none", "at", "all") is None
    assert "fairseq" not in sys.modules
    assert "omegaconf" not in sys.modules


def test_a_namespace_holds_settings_too(tmp_path: Path, save: Any) -> None:
    content = {"model": TENSORS, "args": argparse.Namespace(depth=3, inner=argparse.Namespace(width=8))}
    found = read_checkpoint(save(content, tmp_path / "a.pth"))
    assert found.setting("depth") == 3
    assert found.setting("inner", "width") == 8


@pytest.mark.parametrize(
    "content", [TENSORS, {"state_dict": TENSORS, "epoch": 3}, {"model": TENSORS, "optimizer": {"lr": 0.1}}]
)
def test_tensors_are_found_alone_or_under_the_known_names(tmp_path: Path, save: Any, content: Any) -> None:
    same(read_checkpoint(save(content, tmp_path / "a.pt")).tensors)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_that_a_checkpoint_names_is_called(tmp_path: Path, save: Any, zipped: bool) -> None:
    path = save({"model": TENSORS, "extra": Bomb(tmp_path / "made")}, tmp_path / "a.pt", zipped)
    same(read_checkpoint(path).tensors)
    assert not (tmp_path / "made").exists()


def test_a_file_that_is_none_is_one_line(tmp_path: Path, save: Any) -> None:
    with pytest.raises(WeightsNotFound, match=r"none\.pt: there is no such file"):
        read_checkpoint(tmp_path / "none.pt")
    for number, data in enumerate((b"", b"PK\x03\x04 no zip", b"words", b"\x80\x02}q\x00.")):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(data)
        with pytest.raises(BmlaError, match=rf"{number}\.pt: (can't be read|expected tensors)"):
            read_checkpoint(path)
    whole = save({"model": TENSORS}, tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BmlaError, match=r"cut\.pt: can't be read as a torch checkpoint"):
        read_checkpoint(tmp_path / "cut.pt")
    with pytest.raises(BmlaError, match=r"words\.pt: expected tensors by name"):
        read_checkpoint(save({"model": {"a": 1}}, tmp_path / "words.pt"))


def test_programs_and_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "old.pt", "w") as tar:
        tar.add(__file__, "storages")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as file:
        file.writestr("script/constants.pkl", b"")
    for name in ("old", "script"):
        with pytest.raises(BmlaError, match=rf"{name}\.pt: is a program or an archive"):
            read_checkpoint(tmp_path / f"{name}.pt")
