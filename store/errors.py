"""The errors that bmla raises on purpose: each is one clear line for a person and, on the command line, an exit code.

Wording: what, where, expected, got, what to do. `UsageError` is the caller's words being off (exit code 2);
every other `BmlaError` is a failure of the work itself (exit code 1).
"""


class BmlaError(Exception):
    """Root of all errors raised on purpose; its text is complete on its own."""

    exit_code = 1


class UsageError(BmlaError, ValueError):
    """An option, a name or a path given by the caller is wrong."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that is not in its table; lists the names that are."""

    def __init__(self, kind: str, name: str, known: "list[str] | tuple[str, ...]"):
        super().__init__(f'unknown {kind} "{name}"; known: {", ".join(known)}')
        self.parts = (kind, name, known)

    def __reduce__(self) -> "tuple[type[UnknownName], tuple[str, str, list[str] | tuple[str, ...]]]":
        """Errors come back from worker processes."""
        return type(self), self.parts


class WeightsNotFound(BmlaError, FileNotFoundError):
    """Model weights are not on this machine; says which file, its source and where it is looked for."""


class MediaError(BmlaError):
    """A media file that can't be read, or that lacks what was asked of it. Becomes a clip's failure record."""


class NoSound(MediaError):
    """The file has no audio stream."""


class WorkerDied(BmlaError):
    """A worker process was killed from outside, most often for want of memory."""


class NoFace(MediaError):
    """No face was found in any frame of the clip."""


class StoreError(BmlaError):
    """The store on disk is not what it should be."""


class StoreNotFound(StoreError, FileNotFoundError):
    """No store at this path."""

    exit_code = 2


class StoreMismatch(StoreError):
    """The store was made from another data set, plan or specification; names the difference."""


class StoreBusy(StoreError):
    """Another process is writing this store."""


class StreamNotFound(StoreError, KeyError):
    """The store has no stream of this name; lists those that it has."""

    exit_code = 2

    def __str__(self) -> str:  # KeyError would show the text in quotes
        return str(self.args[0])


class StreamNotDone(StoreError):
    """Some shards of the stream are not extracted yet."""
