"""A sweep of 30 runs whose processes are killed again and again, and that goes on each time, ends in the very same table."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from bmla.cli import main

WORDS = "--model transformer --balance none,ogm --ratio 1:2,1:1,2:1 --seed 0..4 --drop-modality audio,visual --layers 1 --width 16"
WORDS += " --heads 2 --epochs 1 --workers 2 --threads 1"
RUNS = 30
KILLED_AT = (2, 13, 27)  # finished runs
PATIENCE_S = 600.0


def finished(out: Path) -> int:
    return len(list(out.glob("transformer*/config.json")))


def start(words: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """A sweep in a process group of its own."""
    command = [sys.executable, "-c", "from bmla.cli import main; main()", *words]
    path = os.pathsep.join(p for p in sys.path if p)
    with log.open("ab") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=file, start_new_session=True, env={**os.environ, "PYTHONPATH": path}
        )


@pytest.mark.slow
def test_kills_leave_no_trace_in_the_table(tiny_store: Path, tmp_path: Path) -> None:
    words = ["fuse", "--store", str(tiny_store), *WORDS.split(), "--out"]
    whole, broken, log = tmp_path / "whole", tmp_path / "broken", tmp_path / "log"
    result = CliRunner().invoke(main, [*words, str(whole), "--quiet", "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert finished(whole) == RUNS

    for count in KILLED_AT:
        process = start([*words, str(broken)], log)
        began = time.monotonic()
        while finished(broken) < count:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - began < PATIENCE_S, log.read_text()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert count <= finished(broken) < RUNS
        assert not (broken / "results.json").exists()
    assert start([*words, str(broken)], log).wait(PATIENCE_S) == 0, log.read_text()

    assert (broken / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert {p.name for p in broken.glob("transformer*")} == {p.name for p in whole.glob("transformer*")}
    for run in whole.glob("transformer*"):  # not a weight, an answer or a score is another one
        for name in ("model.safetensors", "predictions.parquet", "test.json", "metrics.jsonl"):
            assert (broken / run.name / name).read_bytes() == (run / name).read_bytes(), (run.name, name)
