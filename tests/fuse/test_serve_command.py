"""`bmla serve` and `bmla fuse --watch` as processes, over HTTP."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
from click.testing import CliRunner

from bmla.cli import main
from bmla.commands.serve import open_server
from bmla.fuse.config import RunConfig
from bmla.store.errors import UsageError

QUICK = ["--layers", "1", "--width", "16", "--heads", "2", "--threads", "1", "--workers", "1"]
PATIENCE_S = 60


def start(*words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    before = signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # of tests in the background it is ignored, and a child would ignore it too
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "bmla", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def address(process: subprocess.Popen[str]) -> str:
    """The address that it prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return found[0]
    raise AssertionError("it ended without an address")


def get(url: str) -> str:
    with urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310 - our own server
        return str(answer.read().decode())


def test_runs_are_served_until_ctrl_c(
    tiny: Callable[..., RunConfig], fabricate: Callable[..., Path], tmp_path: Path
) -> None:
    fabricate(tmp_path, tiny("transformer"))
    with start("serve", str(tmp_path), "--port", "0") as process:
        try:
            url = address(process)
            assert url.startswith("http://127.0.0.1:")
            assert "<h1>transformer 1:1 gets" in get(url)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def test_a_token_is_made_where_others_can_reach_the_page_or_when_asked(tmp_path: Path) -> None:
    for address, asked, wanted in (("127.0.0.1", False, False), ("127.0.0.1", True, True), ("0.0.0.0", False, True)):  # noqa: S104
        with open_server((tmp_path,), address, 0, asked) as server:
            assert (server.token is not None) == wanted
            assert ("?token=" in server.url) == wanted


def test_the_default_port_gives_way_and_a_named_one_does_not(tmp_path: Path) -> None:
    with open_server((tmp_path,), "127.0.0.1", None, False) as first:
        with open_server((tmp_path,), "127.0.0.1", None, False) as second:
            assert first.server_port != second.server_port
        with pytest.raises(UsageError, match="can't be served here"):
            open_server((tmp_path,), "127.0.0.1", first.server_port, False)


@pytest.mark.slow
def test_a_sweep_can_be_watched_and_its_server_ends_with_it(tiny_store: Path, tmp_path: Path) -> None:
    words = ["--model", "transformer-ao", "--epochs", "100000", "--out", str(tmp_path / "runs"), *QUICK]
    with start("fuse", "--store", str(tiny_store), *words, "--watch") as process:
        try:
            url = address(process)
            assert "data-live" in get(url)
            until = time.monotonic() + PATIENCE_S
            while "In training" not in (page := get(url)) and time.monotonic() < until:
                time.sleep(0.5)
            assert "transformer-ao seed 0" in page  # an epoch of it was kept
        finally:
            process.kill()  # as the system would, with nobody there to tidy up
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            get(url)
        except OSError:
            return
        time.sleep(0.1)
    raise AssertionError("the page outlived the command that served it")


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    error = CliRunner().invoke(main, ["--debug", "serve", str(tmp_path / "nothing")]).exception
    assert isinstance(error, UsageError)
    assert "no such folder" in str(error)


def test_a_single_run_is_told_where_it_belongs(
    tiny: Callable[..., RunConfig], fabricate: Callable[..., Path], tmp_path: Path
) -> None:
    run = fabricate(tmp_path, tiny("transformer"))
    error = CliRunner().invoke(main, ["--debug", "serve", str(run)]).exception
    assert isinstance(error, UsageError)
    assert str(tmp_path) in str(error)
