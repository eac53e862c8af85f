import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bmla.fuse.config import RunConfig
from bmla.fuse.live import Watched
from bmla.fuse.unfinished import FOLDER, Unfinished

Tiny = Callable[..., RunConfig]
Fabricate = Callable[..., Path]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr("bmla.fuse.live.REST", 0.0)
    return Watched([tmp_path])


def text(watched: Watched) -> str:
    return watched.page().html.decode()


def keep(folder: Path, config: RunConfig, epochs: int) -> None:
    history = [{"epoch": i + 1, "dev_accuracy": 0.1 * i} for i in range(epochs)]
    Unfinished(folder).write({}, {"config": config.to_dict(), "history": history})


def test_the_page_follows_a_sweep(tiny: Tiny, fabricate: Fabricate, tmp_path: Path, watched: Watched) -> None:
    config = tiny("transformer", seed=1)
    assert "No finished run yet" in text(watched)
    keep(tmp_path / FOLDER / "transformer_none_1-1_seed1", config, 2)
    assert f"<td>2 of {config.total_epochs}</td>" in text(watched)
    keep(tmp_path / FOLDER / "transformer_none_1-1_seed1", config, 3)
    assert f"<td>3 of {config.total_epochs}</td>" in text(watched)
    fabricate(tmp_path, config)
    page = text(watched)
    assert "<h1>transformer 1:1 gets" in page
    assert "In training" not in page  # its state is that of a finished run
    assert "1 finished run, 0 unfinished" in page
    fabricate(tmp_path, tiny("transformer", seed=2))
    assert "2 finished runs" in text(watched)


def test_nothing_is_made_anew_while_nothing_changes(
    tiny: Tiny, fabricate: Fabricate, tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fabricate(tmp_path, tiny("transformer"))
    first = watched.page()
    assert watched.page() is first
    monkeypatch.setattr("bmla.fuse.live.summarise", None)  # a state alone needs no new tables
    keep(tmp_path / FOLDER / "another", tiny("transformer", seed=1), 2)
    second = watched.page()
    assert second.tag != first.tag
    monkeypatch.undo()
    shutil.rmtree(folder)
    assert "No finished run yet" in text(watched)


def test_a_killed_and_a_damaged_run_leave_the_others_in_place(
    tiny: Tiny, fabricate: Fabricate, tmp_path: Path, watched: Watched
) -> None:
    fabricate(tmp_path, tiny("transformer"))
    broken = fabricate(tmp_path, tiny("transformer-ao"))
    (broken / "test.json").write_text("{")
    (tmp_path / ".transformer_half-x").mkdir()  # killed while it was being written
    (tmp_path / ".transformer_half-x" / "config.json").write_text("{")
    (tmp_path / FOLDER / "killed").mkdir(parents=True)
    (tmp_path / FOLDER / "killed" / "state.safetensors").write_bytes(b"half")
    page = text(watched)
    assert "<h1>transformer 1:1 gets" in page
    assert f"{broken.name}/test.json: can&#39;t be read" in page


def test_runs_that_make_no_table_are_said(tiny: Tiny, fabricate: Fabricate, tmp_path: Path, watched: Watched) -> None:
    fabricate(tmp_path, tiny("transformer"))
    fabricate(tmp_path, tiny("transformer-ao"), dataset="other")
    page = text(watched)
    assert "runs of different data sets make no table" in page
    assert "No finished run yet" in page


def test_a_run_that_was_written_again_is_read_again(
    tiny: Tiny, fabricate: Fabricate, tmp_path: Path, watched: Watched
) -> None:
    folder = fabricate(tmp_path, tiny("transformer"), skill=0.0)
    before = text(watched)
    shutil.rmtree(folder)
    folder = fabricate(tmp_path, tiny("transformer"), skill=1.0)
    os.utime(folder / "config.json", ns=(10**18, 10**18))
    assert "gets 100.0 %" in text(watched)
    assert "gets 100.0 %" not in before


def test_who_asks_while_the_page_is_made_gets_the_last_one(
    tiny: Tiny, fabricate: Fabricate, tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = watched.page()
    fabricate(tmp_path, tiny("transformer"))
    asked, go_on = threading.Event(), threading.Event()
    made = Watched.made

    def slow(self: Watched, last: object) -> object:
        asked.set()
        go_on.wait(10)
        return made(self, last)  # type: ignore[arg-type]

    monkeypatch.setattr(Watched, "made", slow)
    thread = threading.Thread(target=watched.page)
    thread.start()
    assert asked.wait(10)
    assert watched.page() is first
    go_on.set()
    thread.join()
    assert "<h1>transformer" in text(watched)
