"""An export as tar files of one sample a clip, as the webdataset library reads them; made by the standard library alone.

    bmla.json  clips.parquet  streams/<stream>/bmla.json      as in the folder of .npy files
    clips-000000.tar …        of about TAR_BYTES each, samples in the order of the clip table

A sample's members are `<key>.json` (the clip's columns that are known, steps and failures) and for each stream
`<key>.<stream>.npy` (T, *F) and `<key>.<stream>.valid.npy` (T,). The key is the clip's row with leading zeros and the
stream's dots become "_": webdataset cuts a name at its first dot, and a clip's id may hold dots and slashes. A clip
without features of a stream lacks its members.
"""

import io
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..clips import Clip, as_dict
from ..errors import UsageError
from ..ledger import Failure
from ..sealing import to_json
from .beside import written_beside
from .export import ExportPlan
from .manifest import ContentDigest
from .npy import write_documents, write_stream_document

TAR_BYTES = 1 << 28  # tars of some 100 MB stream well and still spread over workers


def write(plan: ExportPlan, out: Path, advance: Callable[[int], None]) -> None:
    """See `run_export`."""
    names = member_names(plan.manifest.streams)
    contents = {source.name: ContentDigest() for source in plan.sources}
    failures = {source.name: {f.clip: f for f in source.failures} for source in plan.sources}
    readers = {source.name: source.clips(advance) for source in plan.sources}
    with written_beside(out) as folder, Tars(folder) as tars:
        write_documents(plan, folder)
        for row in range(len(plan.clips)):
            clip = plan.clips[row]
            members, steps = {}, {}
            for source in plan.sources:
                if source.lengths[row] == 0:
                    continue
                _, values, valid = next(readers[source.name])
                contents[source.name].add(row, values, valid)
                steps[source.name] = len(values)
                members[f"{names[source.name]}.npy"] = npy_bytes(values)
                members[f"{names[source.name]}.valid.npy"] = npy_bytes(valid)
            members["json"] = to_json(describe(clip, steps, failures))
            tars.add(f"{row:09d}", members)
        for source in plan.sources:
            write_stream_document(folder, source.manifest(contents[source.name]))


def describe(clip: Clip, steps: dict[str, int], failures: dict[str, dict[str, Failure]]) -> dict[str, object]:
    """What a sample says of itself."""
    lost = {name: asdict(of[clip.id]) for name, of in failures.items() if clip.id in of}
    return {**as_dict(clip), "steps": steps, "failures": lost}


def member_names(streams: tuple[str, ...]) -> dict[str, str]:
    """Each stream's name without dots. Raises UsageError where two would be the same."""
    names = {stream: stream.replace(".", "_") for stream in streams}
    taken: dict[str, str] = {}
    for stream, name in names.items():
        if name in taken:
            raise UsageError(f"{taken[name]} and {stream} would both be called {name}: export them one by one")
        taken[name] = stream
    return names


class Tars:
    """Tar files in a row: a new one is begun where the last is large enough. No time, owner or host goes in."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0
        self.tar: tarfile.TarFile | None = None

    def __enter__(self) -> "Tars":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, key: str, members: dict[str, bytes]) -> None:
        """One sample, its members sorted by name."""
        if self.tar is None or self.tar.offset >= TAR_BYTES:
            self.close()
            path = self.folder / f"clips-{self.count:06d}.tar"
            self.tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # lives over many samples
            self.count += 1
        for name in sorted(members):
            info = tarfile.TarInfo(f"{key}.{name}")
            info.size, info.mtime, info.mode = len(members[name]), 0, 0o644
            self.tar.addfile(info, io.BytesIO(members[name]))

    def close(self) -> None:
        if self.tar is not None:
            self.tar.close()


def npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
