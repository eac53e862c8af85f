"""What README and docs tell people to type works: every block of code is run, in order, in a folder of its own.

A block that can't run here says why in a comment above it; its commands are still held against the command line. Where a
document trains, options are added that make models small, and --gpu is left out where there is none: nothing else is changed.
"""

import os
import re
import shlex
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from bmla.cli import main
from bmla.commands.reference import reference, walk
from bmla.extract.encoders.table import TABLE
from bmla.fuse.balance.table import BALANCES
from bmla.fuse.models.table import MODELS
from bmla.store.errors import BmlaError

FOLDER = Path(__file__).parents[2]
DOCUMENTS = (FOLDER / "README.md", *sorted((FOLDER / "docs").glob("*.md")))
CODE = ("sh", "python", "yaml", "csv")  # what is run, or (files) written
SKIP = re.compile(r"^<!-- not run: (?P<why>.+) -->$")
GIVEN = re.compile(
    r"^<!-- given: (?P<names>.+) -->$", re.M
)  # what is there besides data/lrw and clips/: see conftest.py
NAME = re.compile(r"^<!-- file: (?P<name>[\w./-]+) -->$")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        line: of its first line of code, from 1.
        language: after the fence; "" of a plain one.
        skip: why it is not run, as the comment above it says: <!-- not run: … -->.
        file: the file that it is written to, as the comment above it says: <!-- file: … -->.
    """

    document: str
    line: int
    language: str
    text: str
    skip: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks_of(document: Path) -> list[Block]:
    """Its fenced blocks, from the top."""
    found: list[Block] = []
    lines = document.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        if lines[number].startswith("```"):
            language, start = lines[number][3:].strip(), number + 1
            number = next(i for i in range(start, len(lines)) if lines[i].startswith("```"))
            above = next((line for line in reversed(lines[: start - 1]) if line.strip()), "")
            skip, name = SKIP.match(above), NAME.match(above)
            text = "\n".join(lines[start:number]) + "\n"
            found.append(Block(document.name, start + 1, language, text, skip and skip["why"], name and name["name"]))
        number += 1
    return found


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block, comments and the prompts of several machines (node1$) left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(re.sub(r"^\w+\$ ", "", line.strip()), comments=True)
        if words:
            yield words


def bare_commands(document: Path) -> list[int]:
    """Lines, from 1, of commands outside of a fenced block: they would never be run."""
    inside, found = False, []
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside and re.match(r" {4}(\$ )?(bmla|make|python|pip|export) ", line):
            found.append(number)
    return found


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]
SMALL = [
    "--layers", "1", "--width", "16", "--heads", "2", "--epochs", "1", "--finetune-epochs", "1", "--gru-units", "4",
    "--workers", "1", "--threads", "1",
]  # fmt: skip
FASTER = {"fuse": SMALL, "reproduce": SMALL}


def shell(blocks: list[Block]) -> list[tuple[Block, list[str]]]:
    return [(b, words) for b in blocks if b.language == "sh" for words in commands_of(b.text)]


def test_the_reference_is_what_the_commands_say():
    assert (FOLDER / "docs/commands.md").read_text(encoding="utf-8") == reference(main), (
        "bmla reference > docs/commands.md"
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_command_stands_in_a_block_that_is_run(document):
    assert not bare_commands(document)
    assert {b.language for b in blocks_of(document)} <= {*CODE, "text"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_lead_somewhere(document):
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize(
    ("block", "words"),
    [(b, w) for b, w in shell(BLOCKS) if w[0] == "bmla"],
    ids=lambda x: str(x) if isinstance(x, Block) else "",
)
def test_commands_are_understood(block, words):
    path, command = ("bmla",), main
    rest = words[1:]
    known = {p: c for p, c, _ in walk(main, ("bmla",), None)}
    while rest and (*path, rest[0]) in known:
        path = (*path, rest.pop(0))
        command = known[path]
    context = click.Context(command, info_name=path[-1])
    values, _, _ = command.make_parser(context).parse_args([w for w in rest if w != "…"])
    for parameter in command.params:
        given = values.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice) and given is not None:
            for value in given if isinstance(given, list | tuple) else [given]:
                parameter.type.convert(value, parameter, context)


def test_messages_that_the_documentation_explains_exist():
    sources = [p for part in ("store", "extract", "fuse", "commands") for p in (FOLDER / part).rglob("*.py")]
    texts = (re.sub(r'"\s*\n\s*f?"', "", p.read_text(encoding="utf-8")) for p in [*sources, FOLDER / "Makefile"])
    messages = " ".join(texts)  # literals that go on in the next line joined
    explained = re.findall(r"^\| `(.+?)` \|", (FOLDER / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.M)
    assert len(explained) > 20
    assert [e for e in explained if e not in messages] == []


def run_block(block: Block, script: types.ModuleType) -> None:
    """Runs a block in the present folder; `script` holds what earlier blocks of Python left."""
    if block.file is not None:
        target = Path(block.file)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        source = Path(str(script.__file__))
        before = source.read_text(encoding="utf-8") if source.exists() else ""
        source.write_text(before + block.text, encoding="utf-8")  # a class in it can be asked for its source
        code = compile("\n" * before.count("\n") + block.text, str(source), "exec")
        exec(code, script.__dict__)  # noqa: S102  # our own documentation
    elif block.language == "sh":
        for words in commands_of(block.text):
            run_command(block, words)
    else:
        raise AssertionError(f"{block}: a block of {block.language} needs the name of a file above it")


def run_command(block: Block, words: list[str]) -> None:
    if words[0] == "export":
        name, _, value = words[1].partition("=")
        os.environ[name] = value.replace("$PWD", str(Path.cwd()))  # put back when the test ends
        return
    words = [
        name for word in words for name in (sorted(map(str, Path().glob(word))) if "_*" in word else [word])
    ]  # as a shell
    assert words[0] == "bmla", f"{block}: {words[0]} is not run here; say why above the block"
    if "--gpu" in words and not torch.cuda.is_available():
        at = words.index("--gpu")
        words = words[:at] + words[at + 2 :]
    more = FASTER.get(words[1], []) if words[2:3] != ["export"] else []
    known = {o for p in main.commands[words[1]].params for o in p.opts} - {"--workers" if "--tasks" in words else ""}
    pairs = zip(more[::2], more[1::2], strict=True)
    added = [word for pair in pairs if pair[0] in known and pair[0] not in words for word in pair]
    result = CliRunner().invoke(main, [*words[1:], *added])
    if result.exit_code:
        cause = result.exception if not isinstance(result.exception, SystemExit | BmlaError) else None
        raise AssertionError(f"{block}: {' '.join(words)}: exit code {result.exit_code}\n{result.output}") from cause


@pytest.fixture
def tables():
    """What a document adds to the tables is in no other test's."""
    before = {id(table): dict(table) for table in (BALANCES, MODELS, TABLE)}
    yield
    for table in (BALANCES, MODELS, TABLE):
        table.clear()
        table.update(before[id(table)])


@pytest.mark.slow
@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    "document",
    [d for d in DOCUMENTS if any(b.language in CODE and not b.skip for b in blocks_of(d))],
    ids=lambda d: d.name,
)
def test_every_block_runs(document, make_world, request, monkeypatch):
    text = document.read_text(encoding="utf-8")
    given = GIVEN.search(text)
    monkeypatch.chdir(make_world(given["names"].split(", ") if given else ()))
    if "s3://" in text:
        request.getfixturevalue("bucket")
    for name in ("BMLA_WEIGHTS", "BMLA_DATA"):  # blocks may set them
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BMLA_CACHE", str(Path.cwd() / "cache"))
    script = types.ModuleType("documentation")
    script.__file__ = str(Path.cwd() / "documentation.py")
    monkeypatch.setitem(sys.modules, script.__name__, script)
    for block in blocks_of(document):
        if block.language in CODE and not block.skip:
            run_block(block, script)
