"""What a Dask worker does for an extraction: checks that it fits, keeps the models between shards, works on a shard.

*Source:* Dask's worker plugins, https://distributed.dask.org/en/stable/plugins.html: a plugin reaches workers that join later, too.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from distributed import Worker, WorkerPlugin, get_worker

from .. import __version__
from ..store.cluster import one_line, unlike
from ..store.errors import BmlaError
from ..store.spec import StreamSpec, differences
from .failures import NO_CLIPS_FAULT
from .pipeline import Done, Task, run_shard
from .threads import one_thread
from .tools import MEDIA_LIBRARIES, ToolConfig, Tools

TOPIC = "bmla-progress"
LIBRARIES = tuple(sorted({*chain(*MEDIA_LIBRARIES.values()), "torch", "transformers"}))


@dataclass(frozen=True)
class Trouble:
    """Why a worker could not do a shard, as one line. No exception: Dask would log it, and not every one can travel."""

    worker: str
    text: str


class Extraction(WorkerPlugin):
    """One extraction as every worker process holds it; sent once, so that a shard's task is small.

    Attributes:
        name: unique to the extraction.
        root: the folder that the clips' sources are relative to.
        versions: of the client; see `versions_here`.
        specs: the stream specifications that the worker's own models must come to; {} compares none.
    """

    def __init__(
        self, name: str, config: ToolConfig, root: Path, versions: dict[str, str], specs: Mapping[str, StreamSpec]
    ):
        self.name, self.config, self.root, self.versions, self.specs = name, config, root, versions, dict(specs)
        self.unlike: list[str] = []
        self.built = 0

    def setup(self, worker: Worker) -> None:
        """On the worker, before its first shard."""
        self.unlike = unlike(self.versions, versions_here())

    def teardown(self, worker: Worker) -> None:
        """The models go when the extraction is over; a worker may live on."""
        with _shelf_lock:
            _shelf[:] = [(name, tools) for name, tools in _shelf if name != self.name]

    def build(self, worker: Worker) -> Tools:
        """Loads the models. Raises BmlaError where they are not those of the client."""
        place = worker.name if isinstance(worker.name, int) else 0  # local workers are numbered
        visible = torch.cuda.device_count() if self.config.device.startswith("cuda") else 0
        tools = Tools(replace(self.config, device=device_of(self.config.device, place + self.built, visible)))
        self.built += 1
        for stream, spec in sorted(self.specs.items()):
            if lines := differences(spec.to_dict(), tools.specification(stream).to_dict()):
                raise BmlaError(f"its models make another {stream} than the client's: {'; '.join(lines[:3])}")
        return tools


def work(task: Task, number: int, name: str) -> Done | Trouble:
    """One shard on this worker; the Dask task, `number` of the extraction `name`. An error of bmla's becomes `Trouble`, a bug is raised."""
    worker = get_worker()
    extraction: Extraction = worker.plugins[name]  # type: ignore[assignment]
    clips = 0

    def advance(more: int) -> None:
        nonlocal clips
        clips += more
        worker.log_event(TOPIC, {"name": name, "task": number, "clips": clips, "worker": worker.address})

    advance(0)
    if extraction.unlike:
        return Trouble(worker.address, "; ".join(extraction.unlike))
    if not extraction.root.exists():  # without it every clip would be recorded as failed
        return Trouble(worker.address, no_root(extraction.root))
    if extraction.config.device == "cpu":
        one_thread()  # as in a local worker: the same shard gives the same bytes
    try:
        tools = take(extraction, worker)
        try:
            return run_shard(task, tools, extraction.root, advance)
        finally:
            put_back(name, tools)
    except NO_CLIPS_FAULT as error:
        return Trouble(worker.address, f"out of memory in shard {task.shard}: {one_line(error)}")
    except (BmlaError, OSError) as error:
        return Trouble(worker.address, f"shard {task.shard}: {one_line(error)}")


_shelf: list[tuple[str, Tools]] = []  # loaded models that no shard is using, with their extraction's name
_shelf_lock = threading.Lock()


def take(extraction: Extraction, worker: Worker) -> Tools:
    """Models off the shelf; built where a thread finds none. Those of other extractions go: memory holds one set."""
    with _shelf_lock:
        _shelf[:] = [(name, tools) for name, tools in _shelf if name == extraction.name]
        return _shelf.pop()[1] if _shelf else extraction.build(worker)


def put_back(name: str, tools: Tools) -> None:
    with _shelf_lock:
        _shelf.append((name, tools))


def device_of(asked: str, offset: int, visible: int) -> str:
    """The device of a worker's models: the one asked for, `offset` further among those visible to its process.

    Raises:
        BmlaError: a GPU is asked for and none is visible.
    """
    if not asked.startswith("cuda"):
        return asked
    if not visible:
        raise BmlaError("offers the resource GPU, but PyTorch sees no GPU there (driver? CUDA_VISIBLE_DEVICES?)")
    return f"cuda:{(int(asked.partition(':')[2] or 0) + offset) % visible}"


def versions_here() -> dict[str, str]:
    """Versions of bmla and of the libraries that shape the numbers; "missing" where one is not installed."""
    found = {"bmla": __version__}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def facts(root: Path) -> dict[str, Any]:
    """What a client asks a worker at the start."""
    return {"versions": versions_here(), "root": root.exists()}


def no_root(root: Path) -> str:
    return f"{root} is not there: the data set must be at the same path on every machine"
