"""All steps of an epoch of E runs in one go, with nothing in between that asks Python: on a GPU, one step as a CUDA graph, replayed.

That is for runs whose balance method does nothing within a step (`none`, `joint-aux`), whose epochs are of as many steps, and whose
streams are the same ones, resident on the device, of clips about as long. What `stack.py` leaves to each run, its losses and figures,
is computed here for all at once.

A step reads everything from tensors that do not move: which clips, and the learning rates, of all steps of the epoch; and a counter of
the step, which it moves on itself.

*Source:* ours. CUDA graphs: the notes on CUDA semantics in torch's documentation; the steps before a capture are real ones.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..balance.base import Balance
from ..data import Draw
from ..diagnostics import LOSSES, Running
from ..learner import Learner
from ..lockstep import AllSteps
from ..models.base import MODALITIES, FusionModel, Output, Steps, clip_losses, of_true_class, weighted_mean
from ..models.table import takes
from ..stream import Resident
from .layout import Layout
from .mirror import steps_of
from .rows import Rows

WITHIN_A_STEP = ("inputs", "objective", "backward", "gradients", "scales", "updated")
WIDER = 1.5  # the most by which batches as wide as the longest clip of all may be wider than they are
BEFORE_CAPTURE = 3  # steps that are taken one by one; the first finds out which parameters have gradients


def in_one_go(requests: Sequence[Any]) -> bool:
    """Whether all runs wait for an epoch, of as many steps, on the same resident streams, and none has a say within a step."""
    if not all(isinstance(r, AllSteps) for r in requests):
        return False
    streams = [streams_of(r.learner) for r in requests]
    return (
        len({len(r.draws) for r in requests}) == 1
        and all(silent(r.learner) for r in requests)
        and all(isinstance(s, Resident) and len(s.values) for own in streams[0].values() for s in own)
        and all([*map(id, a)] == [*map(id, b)] for own in streams for a, b in zip(own.values(), streams[0].values(), strict=True))
        and evenly_long(requests[0])
    )  # fmt: skip


def silent(learner: Learner) -> bool:
    """Whether nothing but the settings' numbers tells a step of this run from one of any other."""
    kind = type(learner.balance)
    as_it_is = all(getattr(kind, name) is getattr(Balance, name) for name in WITHIN_A_STEP)
    return as_it_is and learner.balance.modality_dropout == 0 and learner.config.mixup == 0


def streams_of(learner: Learner) -> dict[str, tuple[Any, ...]]:
    """By modality: the clean stream and the noise variants that are drawn from."""
    versions = learner.features.versions(learner.config.augment)
    return {m: versions[m].streams for m in takes(learner.config.model)}


def evenly_long(request: AllSteps) -> bool:
    """Whether a batch as wide as the longest clip of all is not much wider than they are."""
    for streams in streams_of(request.learner).values():
        lengths = torch.stack([s.lengths for s in streams]).amax(0)
        widths = [int(lengths[draw.clips].max()) for draw in request.draws]
        if len(widths) * max(widths) > WIDER * sum(widths):
            return False
    return True


class Source:
    """One modality's streams, gathered from where they lie.

    Attributes:
        longest: T, steps of the longest clip that is trained on.
    """

    def __init__(self, streams: Sequence[Resident], trained: Tensor, device: torch.device):
        self.streams = streams
        starts, lengths = (torch.stack([getattr(s, n) for s in streams]) for n in ("starts", "lengths"))
        self.longest = max(1, int(lengths[:, trained].max()))
        self.starts, self.lengths = starts.to(device), lengths.to(device)
        self.within = torch.arange(self.longest, device=device)

    def batch(self, clips: Tensor, versions: Tensor | None, there: Tensor) -> Steps:
        """(n,), (n,) where there are any, (n,) bool -> (n, T, …); the steps of a clip that is not there are not valid."""
        values, mask = self.version(0, clips)
        for v in range(1, len(self.streams)):
            other, other_mask = self.version(v, clips)
            assert versions is not None  # of a modality with more than one stream
            chosen = torch.eq(versions, v)[:, None]
            mask = torch.where(chosen, other_mask, mask)
            values = torch.where(chosen.view(-1, *[1] * (values.ndim - 1)), other, values)
        return Steps(values, mask & there[:, None])

    def version(self, v: int, clips: Tensor) -> tuple[Tensor, Tensor]:
        inside = self.within < self.lengths[v][clips][:, None]
        index = torch.where(inside, self.starts[v][clips][:, None] + self.within, 0)
        stream = self.streams[v]
        return stream.values[index], stream.valid[index] & inside


class Epochs:
    """Trains E runs an epoch at a time.

    Attributes:
        loaded: what the steps of an epoch read, each its share:
            clips, there: (S, E, B): which clips; those that fill up a smaller batch are not there.
            versions …: of each modality that there is noise of, (S, E, B).
            rate …: of each owner, (S, E).
        now: (1,) the number of the next step.
        sums: (figures, E), see `step`.
    """

    def __init__(self, model: FusionModel, layout: Layout, rows: Rows, requests: Sequence[AllSteps]):
        first = requests[0].learner
        self.model, self.layout, self.rows, self.device = model, layout, rows, rows.values.device
        self.bf16 = first.config.precision == "bf16"
        trained = torch.from_numpy(np.unique(np.concatenate([r.learner.clips.train for r in requests])))
        self.sources = {m: Source(streams, trained, self.device) for m, streams in streams_of(first).items()}
        self.labels = first.clips.labels
        learners = [r.learner for r in requests]
        self.smoothing = self.of_each([learner.config.label_smoothing for learner in learners])
        self.clip_norm = self.of_each([learner.config.clip_norm for learner in learners])
        weights = [learner.clips.class_weights for learner in learners]
        ones = torch.ones(len(first.features.classes), device=self.device)
        some = any(w is not None for w in weights)
        self.class_weights = torch.stack([ones if w is None else w for w in weights]) if some else None
        self.drawn = [m for m, source in self.sources.items() if len(source.streams) > 1]
        lambdas = {m: [learner.balance.lambdas[m] for learner in learners] for m in MODALITIES}
        self.lambdas = {m: self.of_each(own) for m, own in lambdas.items() if any(own)}
        self.graph: torch.cuda.CUDAGraph | None = None
        self.shape: torch.Size | None = None  # of what the graph was captured with
        if self.device.type == "cuda":
            layout.joint = torch.Generator(self.device)

    def of_each(self, numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32, device=self.device)

    def train(self, requests: Sequence[AllSteps]) -> list[Running]:
        """An epoch of each run. Returns the sums of each."""
        steps = len(requests[0].draws)
        self.load(requests)
        if self.layout.joint is not None:
            self.layout.joint.manual_seed(seed_of(requests))
        self.model.train()
        if self.device.type == "cuda":
            self.replay(steps)
        else:
            for sizes in zip(*([len(d.clips) for d in r.draws] for r in requests), strict=True):
                self.layout.clips = sizes
                self.step()
        self.rows.taken_more(steps)
        return self.figures(requests, steps)

    def load(self, requests: Sequence[AllSteps]) -> None:
        """Puts what the steps of this epoch will read where they read it."""
        sizes = torch.tensor([[len(draw.clips) for draw in r.draws] for r in requests]).T  # (S, E)
        B = int(sizes.max())
        clips = on_grid(requests, B, lambda draw: draw.clips)
        loaded = {"clips": clips, "there": torch.arange(B) < sizes[..., None]}
        for m in self.drawn:
            loaded[f"versions {m}"] = on_grid(requests, B, partial(versions_of, modality=m))
        for owner in self.rows.columns:
            loaded[f"rate {owner}"] = torch.tensor([r.rates[owner] for r in requests]).T.contiguous()
        if clips.shape != self.shape:
            self.graph, self.shape = None, clips.shape
            self.loaded = {name: value.to(self.device) for name, value in loaded.items()}
            self.now = torch.zeros(1, dtype=torch.int64, device=self.device)
            self.sums = torch.zeros(1 + len(LOSSES) + 2 + len(self.rows.columns), len(requests), device=self.device)
        else:
            for name, value in loaded.items():
                self.loaded[name].copy_(value)
            self.now.zero_()
            self.sums.zero_()
        runs = clips.shape[1]
        self.layout.clips = [B] * runs
        self.layout.steps = steps_of(self.model, {m: [s.longest] * runs for m, s in self.sources.items()})

    def replay(self, steps: int) -> None:
        """So many steps on a GPU."""
        first = 0
        if self.graph is None:
            first = min(BEFORE_CAPTURE, steps)
            aside = torch.cuda.Stream(self.device)
            aside.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(aside):
                for _ in range(first):
                    self.step()
            torch.cuda.current_stream(self.device).wait_stream(aside)
            if first == steps:
                return
            self.graph = torch.cuda.CUDAGraph()
            assert self.layout.joint is not None
            self.graph.register_generator_state(self.layout.joint)
            with torch.cuda.graph(self.graph):
                self.step()
        for _ in range(first, steps):
            self.graph.replay()

    def step(self) -> None:
        """One step of each run. All that it reads and writes lies still."""
        clips, there = self.at("clips"), self.at("there")
        E, B = clips.shape
        with torch.no_grad():
            inputs = {
                m: source.batch(
                    clips.flatten(), self.at(f"versions {m}").flatten() if m in self.drawn else None, there.flatten()
                )
                for m, source in self.sources.items()
            }
            labels = self.labels[clips]
            weights = there.float()
            if self.class_weights is not None:
                weights = weights * self.class_weights.gather(1, labels)
            present = {m: steps.present.view(E, B) for m, steps in inputs.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            output: Output = self.model(inputs.get("audio"), inputs.get("visual"))
        losses = [cross_entropies(output.result, labels, weights, self.smoothing)]
        total = losses[0]
        for m in MODALITIES:
            answer: Tensor | None = getattr(output, m)
            if answer is None or m not in present:
                losses.append(torch.zeros_like(total))
                continue
            losses.append(cross_entropies(answer, labels, weights * present[m], self.smoothing))
            if m in self.lambdas:
                total = total + self.lambdas[m] * losses[-1]
        slots = [slot for slot, _ in self.rows.slots]
        for slot, gradient in zip(
            slots, torch.autograd.grad(total.sum(), [s.value for s in slots], allow_unused=True), strict=True
        ):
            slot.value.grad = gradient
        self.rows.collect()
        norms = self.rows.update({owner: self.at(f"rate {owner}") for owner in self.rows.columns}, self.clip_norm)
        with torch.no_grad():
            count = there.sum(1)
            true = [
                true_scores(answer, labels, there, present)
                if output.audio is not None and output.visual is not None
                else torch.zeros_like(total)
                for answer in (output.audio, output.visual)
            ]
            self.sums += torch.stack([total * count, *(loss * count for loss in losses), *true, *norms.values()])
            self.now += 1
        self.answers = [answer is not None for answer in (output.result, output.audio, output.visual)]

    def at(self, name: str) -> Tensor:
        """This step's share."""
        return self.loaded[name].index_select(0, self.now)[0]

    def figures(self, requests: Sequence[AllSteps], steps: int) -> list[Running]:
        sums = self.sums.cpu()
        found = []
        for e, request in enumerate(requests):
            running = Running(tuple(request.groups), torch.device("cpu"))
            running.clips, running.steps = sum(len(draw.clips) for draw in request.draws), steps
            running.loss, running.losses, running.true, each = sums[:, e].split(
                [1, len(LOSSES), 2, len(self.rows.columns)]
            )
            norms = dict(zip(self.rows.columns, each, strict=True))
            running.norms = torch.stack([norms.get(owner, torch.zeros(())) for owner in request.groups])
            running.scales = torch.full((len(request.groups),), float(steps))
            running.has_losses = list(self.answers)
            found.append(running)
        return found


def on_grid(requests: Sequence[AllSteps], largest: int, part: Callable[[Draw], Tensor]) -> Tensor:
    """(S, E, B) of what each draw has of each clip, filled up with zeros."""
    rows = [part(draw) for r in requests for draw in r.draws]
    rows.append(rows[0].new_zeros(largest))  # as wide as the largest batch, whoever has it
    return pad_sequence(rows, batch_first=True)[:-1].view(len(requests), -1, largest).transpose(0, 1).contiguous()


def versions_of(draw: Draw, modality: str) -> Tensor:
    """All clean, where none is drawn."""
    return draw.versions.get(modality, torch.zeros_like(draw.clips))


def cross_entropies(logs: Tensor, labels: Tensor, weights: Tensor, smoothing: Tensor) -> Tensor:
    """(E,): `models.base.cross_entropy` of E runs.

    Args:
        logs: (E B, c) log-probabilities.
        labels, weights: (E, B); the weight of a clip is that of its class, zero where it is not present.
        smoothing: (E,).
    """
    each = clip_losses(logs.float().view(*labels.shape, -1), labels, smoothing[:, None])
    return weighted_mean(each, weights)


def true_scores(logs: Tensor | None, labels: Tensor, there: Tensor, present: Mapping[str, Tensor]) -> Tensor:
    """(E,): the probability of the true class by one modality's answers, summed over the clips that have both."""
    assert logs is not None
    both = torch.stack([there, *present.values()]).all(0)
    each = of_true_class(logs.float().view(*labels.shape, -1), labels).exp()
    return (each * both).sum(1)


def seed_of(requests: Sequence[AllSteps]) -> int:
    """Of an epoch's dropout masks: the same for the same runs, as far on."""
    told = [(r.learner.config.seed, r.number) for r in requests]
    return int.from_bytes(hashlib.sha256(repr(told).encode()).digest()[:7])
