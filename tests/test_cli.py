"""The command line: light to start, documented, and one clear line for every error."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bmla.cli import main

HEAVY = ("torch", "transformers", "zarr", "pyarrow", "numpy", "cv2", "av", "sklearn", "matplotlib", "rich")


def commands(group=main, path=()):
    for name, command in sorted(group.commands.items()):
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def run(*words, **kwargs):
    return CliRunner().invoke(main, [str(w) for w in words], **kwargs)


def test_help_imports_no_heavy_library():
    code = "import sys; from bmla.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(shown.splitlines()[-1].split())
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda x: " ".join(x) if isinstance(x, tuple) else ""
)
def test_every_command_is_documented(path, command):
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize(
    ("path", "command"),
    [
        (p, c)
        for p, c in commands()
        if not isinstance(c, click.Group) and p[0] not in ("models", "balances", "encoders", "datasets")
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_every_command_shows_an_example_of_itself(path, command):
    assert f"bmla {' '.join(path)}" in run(*path, "--help").output


@pytest.mark.parametrize("name", ["models", "balances", "encoders", "datasets"])
def test_lists_have_one_line_each(name):
    result = run(name)
    assert result.exit_code == 0
    assert all(len(line.split("  ", 1)) == 2 for line in result.output.splitlines())


def test_module_is_the_same_as_the_command():
    shown = subprocess.run(
        [sys.executable, "-m", "bmla", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert shown.startswith("bmla, version ")


def test_doctor_says_what_is_missing_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    result = run("doctor", "--json")
    findings = json.loads(result.output)
    groups = {f["group"] for f in findings}
    assert groups == {"versions", "devices", "weights", "decoders", "disk"}
    missing = [f for f in findings if f["group"] == "weights" and not f["ok"]]
    assert all(f["remedy"] for f in missing)


def test_errors_are_one_line_and_debug_shows_the_traceback(tmp_path):
    result = run("store", "info", tmp_path / "none.zarr")
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert "nothing here" in result.output
    assert run("--debug", "store", "info", tmp_path / "none.zarr").exception.__class__.__name__ == "StoreNotFound"


def test_store_is_found_when_it_is_the_only_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no store here" in run("store", "info").output
    for name in ("a.zarr", "stores/b.zarr"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "zarr.json").write_text("{}")
    result = run("store", "info")
    assert result.exit_code == 2
    assert "a.zarr" in result.output
    assert str(Path("stores/b.zarr")) in result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_completion_script(shell):
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_BMLA_COMPLETE" in result.output


def test_completion_knows_commands_options_and_names():
    def complete(line):
        environment = {"_BMLA_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        result = CliRunner().invoke(main, [], env=environment, prog_name="bmla", complete_var="_BMLA_COMPLETE")
        return [word.partition(",")[2] for word in result.output.split()]

    assert complete("bmla fu") == ["fuse"]
    assert "--ratio" in complete("bmla fuse --ra")
    assert complete("bmla fuse --model balancemla-a") == ["balancemla-ao"]
    assert complete("bmla fuse --model concat,balancemla-a") == ["concat,balancemla-ao"]
    assert "ogm-ge" in complete("bmla fuse --balance og")
    assert "audio.hubert" in complete("bmla extract --stream audio.hu")


PROSE = ("completion", "demo", "reference", "serve")  # a script, other commands' results, Markdown, an address
WATCHED = ("demo", "extract", "fuse", "predict", "reproduce", *(
    f"store {name}" for name in ("export", "import", "merge", "pull", "push", "verify")
))  # fmt: skip


def options_of(command):
    return {name: p for p in command.params for name in p.opts}


def test_every_command_with_results_has_them_as_json():
    results = {" ".join(path): c for path, c in commands() if c.callback is not None}
    groups = {"store", "weights"}
    without = {name for name, c in results.items() if "--json" not in options_of(c)}
    assert without == {*PROSE, *groups}


def test_every_command_with_a_progress_bar_can_be_quiet():
    assert {" ".join(path) for path, c in commands() if "--quiet" in options_of(c)} == set(WATCHED)


@pytest.mark.parametrize("name", ["--json", "--quiet"])
def test_the_same_option_says_the_same_everywhere(name):
    assert len({options_of(c)[name].help for _, c in commands() if name in options_of(c)}) == 1


@pytest.mark.parametrize("words", ["models", "balances", "encoders", "datasets", "doctor"])
def test_lists_as_json(words, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    result = run(words, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)


def test_json_of_a_list_is_not_that_of_a_check():
    result = run("datasets", "--json", "check", "grid")
    assert result.exit_code == 2
    assert "--json: goes behind check" in result.output
