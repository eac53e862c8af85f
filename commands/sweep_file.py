"""A sweep's words in a file: `--sweep FILE` takes them from there, `--add FOLDER` from an earlier sweep, which it extends.

    store: stores/words.zarr
    model: [transformer, balancemla]
    ratio: 1:4,1:2,1:1,2:1,4:1
    seed: 0..9

Keys are the options of the command, values what would stand after them: a text, or a list where the option may be repeated. Every
value is read as text, so that 1:2 is a ratio and not YAML's 62 minutes. What the command line says goes before the file; with --add,
what it says about an axis comes on top. Each sweep leaves its own words in its folder.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..store.errors import StoreError, UsageError
from .sweep_options import Option

NAME = "sweep.yaml"
EARLIER = "bmla.earlier"  # where the context keeps the words that --add extends
AXES = ("models", "ratios", "seeds", "fold_words", "balances", "augmentations", "removals", "tests", "dropped")
NOTHING_SAID = {"augmentations": ("none",), "removals": ("none",)}  # what these axes are where they are not given
# Where and how a sweep is worked off, not what it is.
ELSEWHERE = {"store_path", "out", "device", "gpu", "endpoint", "anonymous", "tier", "budget", "workers", "threads", "executor",
             "cluster", "resume", "as_json", "quiet", "digest", "log_words"}  # fmt: skip

Words = dict[str, str | list[str]]


def use_sweep(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Puts a file's words where click looks for what the command line does not say."""
    if path is not None:
        if ctx.default_map:
            raise UsageError("give --sweep or --add, not both: --add FOLDER has the words of the sweep that it extends")
        ctx.default_map = dict(read_words(path, ctx))


def use_earlier(ctx: click.Context, parameter: click.Parameter, folder: Path | None) -> None:
    """The same with the words of an earlier sweep, which are kept to be extended; see `extending`."""
    if folder is not None:
        if ctx.default_map:
            raise UsageError("give --sweep or --add, not both: --add FOLDER has the words of the sweep that it extends")
        if not (folder / NAME).is_file():
            raise UsageError(f"--add {folder}: no sweep here to add to: expected a folder with a {NAME} of `bmla fuse`")
        words = read_words(folder / NAME, ctx)
        ctx.default_map = {**words, "out": str(folder)}
        ctx.meta[EARLIER] = words


FILES: tuple[Option, ...] = (
    click.option(
        "--sweep",
        metavar="FILE",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=use_sweep,
        help=f"Options from a YAML file: ratio: 1:2,1:1. The command line goes before it. Every sweep leaves a {NAME}.",
    ),
    click.option(
        "--add",
        metavar="FOLDER",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=use_earlier,
        help="Extend the sweep of this folder: its options, and the models, ratios, seeds, … given here on top.",
    ),
    click.option(
        "--features",
        "digest",
        metavar="DIGEST",
        help="Stop unless the features have this digest; a sweep.yaml says that of its own.",
    ),
)


def extending(command: Callable[..., Any]) -> Callable[..., Any]:
    """Calls a command with the words of --add and its own together."""

    @functools.wraps(command)
    def call(**params: Any) -> Any:
        ctx = click.get_current_context()
        if EARLIER in ctx.meta:
            for name, value in params.items():
                if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE:
                    params[name] = ctx.params[name] = together(ctx, name, value)
        return command(**params)

    return call


def together(ctx: click.Context, name: str, value: Any) -> Any:
    """What an option is for a sweep that is extended. Raises UsageError where an earlier sweep can't have it changed."""
    earlier: Mapping[str, Any] = ctx.meta[EARLIER]
    parameter = next(p for p in ctx.command.params if p.name == name)
    nothing: Any = () if parameter.multiple else None
    before: Any = parameter.type_cast_value(ctx, earlier[name]) if name in earlier else nothing
    if name in AXES:
        return (*before, *value)
    if name == "out" and value != Path((ctx.default_map or {})["out"]):
        raise UsageError(f"--out {value}: --add keeps its runs in the folder of the sweep that it extends")
    if name not in ELSEWHERE and value != before:
        was = "the sweep was made without it" if before == nothing else f"the sweep has {before}"
        raise UsageError(f"{option_name(parameter)} {value}: {was}, and --add changes only what a sweep spans; "
                         "leave it out, or begin another sweep with --out")  # fmt: skip
    return value


def read_words(path: Path, ctx: click.Context) -> Words:
    """A file's words, by the name of the command's parameter.

    Raises:
        UsageError: it can't be read, or a key or value is none of the command's; says in which line.
    """
    from .flat_yaml import read_flat

    options = {key_of(p): p for p in ctx.command.params if p.name not in ("sweep", "add")}
    words: Words = {}
    for entry in read_flat(path):
        where = f"{path}, line {entry.line}"
        key = entry.key.strip().replace("_", "-")
        if key not in options:
            raise UsageError(
                f'{where}: unknown key "{entry.key}"; keys are the options of the command: {", ".join(options)}'
            )
        option, value = options[key], entry.value
        if str(option.name) in words:
            raise UsageError(f"{where}: {key} stands here a second time")
        if value is None:
            raise UsageError(
                f"{where}: {key}: expected a text or number{' or a list of them' if option.multiple else ''}"
            )
        if isinstance(value, list) and not option.multiple:
            raise UsageError(f"{where}: {key} is a list, expected one text or number: no sweep spans it")
        words[str(option.name)] = [value] if option.multiple and isinstance(value, str) else value
        try:
            option.type_cast_value(ctx, words[str(option.name)])
        except click.BadParameter as error:
            raise UsageError(f"{where}: {key}: {error.message.rstrip('.')}") from error
    if "digest" in words and "noise_share" not in words and {*words.get("augmentations", ())} - {"none"}:
        words["noise_share"] = "0"  # of a sweep from before there was this setting; a person's file has no digest
    return words


def keep_words(folder: Path, ctx: click.Context, said: Mapping[str, str]) -> None:
    """Writes the words of this sweep into its folder, whole or not at all.

    Args:
        said: more of them, by key: what was chosen for the user.

    Raises:
        StoreError: it can't be written.
    """
    words: dict[str, Any] = {}
    for parameter in ctx.command.params:
        value = ctx.params.get(str(parameter.name))
        if isinstance(value, tuple):
            value = tuple(v for v in value if v != "")  # says nothing, and can't be read back
        if value == ():
            value = NOTHING_SAID.get(str(parameter.name))
        if parameter.name not in ELSEWHERE and value not in (None, "") and value is not False:  # 0 is an answer
            words[key_of(parameter)] = [str(v) for v in value] if isinstance(value, tuple) else plain(value)
    import yaml

    text = yaml.safe_dump({**said, **{k: v for k, v in words.items() if k not in said}}, sort_keys=False, width=120)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{NAME}.new"
        beside.write_text(HEAD + text, "utf-8")
        beside.replace(folder / NAME)
    except OSError as error:
        raise StoreError(f"{folder}: cannot write here: {error.strerror or error}") from error


HEAD = f"""# What this sweep was asked for. `bmla fuse --sweep {NAME}` asks for it again; `bmla fuse --add FOLDER --seed 10..19` extends it.
"""


def plain(value: Any) -> str:
    """As it would stand on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def key_of(parameter: click.Parameter) -> str:
    """The key of an option in a file."""
    return option_name(parameter).removeprefix("--")


def option_name(parameter: click.Parameter) -> str:
    return next((o for o in parameter.opts if o.startswith("--")), str(parameter.name))
