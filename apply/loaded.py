"""A run that can be asked about files: `bmla.load_run(path).predict("clip.mp4")`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..fuse.answer import answer
from ..fuse.models.base import FusionModel, Input
from ..fuse.models.table import takes
from ..fuse.run import Run, input_of
from ..fuse.run import load_run as load_finished
from ..store import Store, open_store
from ..store.clips import Clip
from ..store.errors import MediaError, StoreMismatch, UsageError
from ..store.ledger import Failure
from ..store.merge import ShardReader
from ..store.shard import ClipFeatures
from .cuts import Cut
from .prediction import Prediction

if TYPE_CHECKING:
    from ..extract.rebuild import Maker

GROUP_CLIPS = 64  # whose features are in memory at a time
FAR_OFF = 1.5  # times the longest clip that was trained on, or the shortest: said to the user


def ignore(clips: int) -> None:
    """Progress that nobody is told of."""


def load_run(
    path: str | Path,
    *,
    weights: Sequence[str | Path] = (),
    models: Mapping[str, str] | None = None,
    detector: str | Path | None = None,
    store: str | Path | None = None,
    device: str = "cpu",
) -> "LoadedRun":
    """Opens a finished run, to ask it about clips.

    Args:
        path: its folder.
        weights: folders in which the encoders' weights are looked for.
        models: where a stream's model lies, by stream, such as {"audio.hubert": "weights/hubert"}.
        detector: a RetinaFace checkpoint, where the stream was not made with the embedded one.
        store: the store that it was trained on, for derived streams, and for runs that keep no specification.
        device: "cpu" or "cuda:0".

    Raises:
        UsageError, RunDamaged: there is no run, or it can't be believed.

    >>> run = bmla.load_run("runs/words/balancemla_1-1_seed0_c958b9c3ec")
    >>> run.predict("clip.mp4", start_s=0.92, end_s=1.2).top(3)
    """
    return LoadedRun(
        load_finished(path),
        weights=tuple(map(Path, weights)),
        models=dict(models or {}),
        detector=None if detector is None else Path(detector),
        store=None if store is None else open_store(store),
        device=device,
    )


class LoadedRun:
    """A run with what it needs to be asked. Made by `load_run`; encoders are loaded when the first file comes.

    Attributes:
        run: as it lies on disk: settings, scores, predictions; see `fuse.run.Run`.
    """

    def __init__(
        self,
        run: Run,
        *,
        weights: tuple[Path, ...] = (),
        models: Mapping[str, str] | None = None,
        detector: Path | None = None,
        store: Store | None = None,
        device: str = "cpu",
    ):
        self.run, self.store, self.device = run, store, device
        self._where: dict[str, Any] = {"weights": weights, "models": models or {}, "detector": detector}

    @property
    def modalities(self) -> tuple[str, ...]:
        """That its model takes."""
        return takes(self.run.config.model)

    @property
    def inputs(self) -> dict[str, Input]:
        """What one step of each is."""
        return {m: input_of(self.run.document["features"]["streams"][m]) for m in self.modalities}

    @cached_property
    def model(self) -> FusionModel:
        return self.run.model(self.device)

    @cached_property
    def makers(self) -> "dict[str, Maker]":
        """By modality, what makes its stream.

        Raises:
            StoreMismatch, UsageError, WeightsNotFound: this machine can't make the very features; one line says why.
        """
        from ..extract.rebuild import Means, maker_of

        means = Means(**self._where, device=self.device, store=self.store)
        specs = {m: self.run.specification(m) or self.from_store(m) for m in self.modalities}
        return {m: maker_of(spec, means) for m, spec in specs.items()}

    @property
    def versions(self) -> list[str]:
        """Lines on libraries that are not those of the training features: numbers may differ in the last digits."""
        return [line for maker in self.makers.values() for line in maker.versions]

    def from_store(self, modality: str) -> Any:
        """The specification of a stream, from the store that the run was trained on.

        Raises:
            UsageError: no store was named, or it holds another stream of this name.
        """
        stream = self.run.document["features"]["streams"][modality]
        if self.store is None:
            raise UsageError(
                f"{self.run.name}: keeps no specification of {stream['name']}: name the store that it was trained on by --store"
            )
        spec = self.store.spec(stream["name"])
        if spec.digest() != stream["digest"]:
            raise StoreMismatch(
                f"{self.run.name}: was trained on another {spec.name} than {self.store.place} has: digest "
                f"{stream['digest'][:12]} in training, {spec.digest()[:12]} there"
            )
        return spec

    def predict(
        self, video: str | Path, start_s: float = 0.0, end_s: float | None = None, name: str | None = None
    ) -> Prediction:
        """The answer about one file, or a span of it.

        Args:
            start_s, end_s: seconds; the whole file where nothing is said.
            name: what the clip is called; it seeds the noise of a run that was trained on noise.

        Returns:
            a Prediction; its `error` says so where neither sight nor sound could be used.

        Raises:
            UsageError: there is no such file, or the span is none.
            StoreMismatch, WeightsNotFound: the features can't be made as for the training.
        """
        return next(iter(self.predict_many([Cut(Path(video), start_s, end_s, name)], attention=True)))

    def predict_many(
        self, cuts: Sequence[Cut], *, attention: bool = False, advance: Callable[[int], None] = ignore
    ) -> Iterator[Prediction]:
        """Answers about many, in their order; clips share batches, and one that fails is an answer with an `error`.

        Args:
            attention: also keep what looked where.
            advance: called with a number of clips as they get done.
        """
        makers = self.makers
        for first in range(0, len(cuts), GROUP_CLIPS):
            group = cuts[first : first + GROUP_CLIPS]
            clips = [row(cut) for cut in group]
            readable = [clip for clip in clips if isinstance(clip, Clip)]
            made: dict[str, list[ClipFeatures]] = {}
            with few_threads(self.device):
                for modality, maker in makers.items():
                    tell = advance if modality == self.modalities[-1] else ignore
                    made[modality] = maker.make(readable, Path("/"), tell) if readable else []
            advance(len(clips) - len(readable))
            features = [{m: made[m][i] for m in makers} for i in range(len(readable))]
            whole = iter(self.asked(readable, features, attention))
            for cut, clip in zip(group, clips, strict=True):
                yield next(whole) if isinstance(clip, Clip) else self.unreadable(cut, clip)

    def stored_clips(self, split: str | None) -> int:
        """How many clips `predict_stored` answers about."""
        return 0 if self.store is None else len(self.store.clips.indices(split))

    def predict_stored(
        self, split: str | None, *, attention: bool = False, advance: Callable[[int], None] = ignore
    ) -> Iterator[Prediction]:
        """Answers about the clips of the store, from its features.

        Args:
            split: "train", "dev" or "test"; None: all.

        Raises:
            UsageError: no store, or no such clips in it.
            StoreMismatch: its streams are not those that the run was trained on.
            StreamNotFound, StreamNotDone.
        """
        if self.store is None:
            raise UsageError("name the store whose clips are asked about")
        names = {m: self.from_store(m).name for m in self.modalities}
        rows = self.store.clips.indices(split)
        if not len(rows):
            raise UsageError(f"{self.store.place}: no clip in the split {split}")
        for name in names.values():
            self.store.require(name, rows)
        readers = {m: ShardReader(self.store, name) for m, name in names.items()}
        for first in range(0, len(rows), GROUP_CLIPS):
            numbers = rows[first : first + GROUP_CLIPS].tolist()
            features = [{m: reader.clip(number) for m, reader in readers.items()} for number in numbers]
            yield from self.asked(self.store.clips.rows(numbers), features, attention)
            advance(len(numbers))

    def asked(
        self, clips: Sequence[Clip], features: Sequence[Mapping[str, ClipFeatures]], attention: bool
    ) -> list[Prediction]:
        """Answers from features: those that have a valid step go through the model, for the others it is said why not."""
        missing = [{m: reason for m in found if (reason := lack(found[m]))} for found in features]
        usable = [i for i, lacks in enumerate(missing) if len(lacks) < len(self.modalities)]
        answers = dict(
            zip(
                usable,
                answer(self.model, self.inputs, [features[i] for i in usable], attention=attention),
                strict=True,
            )
        )
        rates_hz = {m: source.rate_hz for m, source in self.inputs.items()}
        return [
            Prediction(
                clip.id,
                clip.start_s,
                clip.end_s,
                self.run.classes,
                answers.get(i),
                missing[i],
                rates_hz,
                clip.label,
                self.remarks(clip.duration_s),
            )
            for i, clip in enumerate(clips)
        ]

    def remarks(self, duration_s: float) -> tuple[str, ...]:
        """Whether the clip is far longer or shorter than those that the run was trained on."""
        spans = [span for m in self.modalities if (span := self.run.seconds(m)) is not None]
        if not spans:
            return ()
        shortest, longest = min(s[0] for s in spans), max(s[1] for s in spans)
        if shortest / FAR_OFF <= duration_s <= longest * FAR_OFF:
            return ()
        return (
            f"this clip has {duration_s:.2f} s, the run was trained on clips of {shortest:.2f} to {longest:.2f} s: "
            "cut such a span out (--from, --to)",
        )

    def unreadable(self, cut: Cut, error: MediaError) -> Prediction:
        """For a file that holds no media."""
        missing = dict.fromkeys(self.modalities, str(error))
        return Prediction(
            cut.id or cut.path.name, cut.start_s, cut.end_s or cut.start_s, self.run.classes, None, missing, {}
        )


def row(cut: Cut) -> Clip | MediaError:
    try:
        return cut.clip()
    except MediaError as error:
        return error


def lack(features: ClipFeatures) -> str | None:
    """Why a clip has nothing of a modality; None where it has a valid step."""
    if isinstance(features.failure, Failure):
        return f"{features.failure.error}: {features.failure.message}"
    if features.valid is None or not features.valid.any():
        return "no valid step"
    return None


@contextmanager
def few_threads(device: str) -> Iterator[None]:
    """One thread on the CPU, as in an extraction: the last bit of a sum depends on how many share it."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
