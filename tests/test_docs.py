"""The Python of the documents runs: all blocks of one, in order, as one program in an empty folder."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"
RUN = ("python.md",)  # those whose blocks need nothing but bmla


def program(document: str) -> str:
    """The lines of its python blocks, where they are in the document: a traceback names the right ones."""
    lines, inside = [], False
    for line in document.splitlines():
        fence = re.match(r"```(\w*)", line)
        lines.append(line if inside and not fence else "")
        if fence:
            inside = not inside and fence[1] == "python"
    return "\n".join(lines) + "\n"


def test_a_program_is_the_blocks_at_their_lines() -> None:
    assert (
        program("a\n```python\nx = 1\n```\n```sh\nls\n```\n```python\ny = x\n```") == "\n\nx = 1\n\n\n\n\n\ny = x\n\n"
    )


@pytest.mark.parametrize("name", RUN)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    text = program((DOCS / name).read_text("utf-8"))
    assert text.strip(), "no example in it"
    module = f"example_{Path(name).stem}"
    Path(f"{module}.py").write_text(text, "utf-8")  # a file, so that the source of its classes can be read
    spec = importlib.util.spec_from_file_location(module, tmp_path / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    monkeypatch.setitem(sys.modules, module, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(sys.modules[module])
