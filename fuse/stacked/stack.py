"""Drives the trainings of many runs in lockstep: one pass forward, one backward and one update for all of them.

Each run's own epoch loop (`epochs.py`) goes on until it asks for a pass; when all ask, their batches are folded into one. So all
that is a run's own stays so: the order of its clips, its noise and dropout, balance method, phases, patience, what it keeps for the
case that it is killed. A run that ends, or whose loss is no number any more, leaves; the next one takes its place.

What the balance method and the losses see is cut off from the stack: each run takes the gradient of its loss with regard to its own
answers, and one pass carries all of these on to the parameters.

On a GPU, where nothing within a step is a run's own but numbers, all steps of an epoch are taken in one go: see `whole.py`. Dropout
masks are then drawn for all runs together, so that they depend on who else is in the stack. What all runs ask of their models between
epochs, and when they are trained, one pass answers there: see `questions.py`. (On a CPU that takes as long as one by one.)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ...store.errors import BmlaError
from ..lockstep import AllSteps, Backward, Forward, Optimise, Request, Training, Update
from ..models.base import FusionModel, Output
from ..predictions import Ask
from .layout import Draws, Layout, fold
from .mirror import mirror, slots_of, steps_of
from .questions import answers, the_same
from .rows import RowOptimiser, Rows
from .whole import Epochs, in_one_go

Key = TypeVar("Key")
Result = TypeVar("Result")
Start = Callable[[], Training[Result]]


class Member(Generic[Key, Result]):
    """One run in a stack.

    Attributes:
        request: what it waits for; None: it has ended.
        outcome: what it came to, an error included.
    """

    request: Request | None
    outcome: Result | BmlaError

    def __init__(self, key: Key, training: Training[Result], device: torch.device):
        self.key, self.training, self.draws = key, training, Draws(device)
        self.optimiser: RowOptimiser | None = None
        self.new = False  # its optimiser is, and has no rows yet
        self.go_on(None)

    def go_on(self, answer: Any) -> None:
        """Gives the training what it asked for, and runs it until it asks again."""
        with self.draws.in_place():
            try:
                self.request = self.training.send(answer)
                while isinstance(self.request, Optimise):
                    self.new = True
                    self.optimiser = RowOptimiser(self.request.groups, self.request.weight_decay)
                    self.request = self.training.send(self.optimiser)
            except StopIteration as end:
                self.request, self.outcome = None, end.value
            except BmlaError as error:
                self.request, self.outcome = None, error


def run_stacked(
    starts: Iterable[tuple[Key, Start[Result]]],
    width: int,
    device: torch.device | str = "cpu",
    whole: bool | None = None,
) -> Iterator[tuple[Key, Result | BmlaError]]:
    """Trains many runs of one architecture, so many at once, and gives back what each comes to as it ends.

    Args:
        starts: of each run, what it is known by, and what begins its training; called when there is room for it.
        width: E, the largest number in lockstep.
        whole: epochs are trained, and questions of all runs answered, in one go where they can be; None: see `in_one_go_on`.

    Raises:
        DoesNotStack: the model has a part that only works for one run.
    """
    waiting, place = iter(starts), torch.device(device)
    at_once = in_one_go_on(place) if whole is None else whole
    members: list[Member[Key, Result]] = []
    try:
        stack: Stack | None = None
        while True:
            joined = []
            for key, start in islice(waiting, width - len(members)):
                member = Member(key, start(), place)
                members.append(member)
                joined.append(member)
            ended = [m for m in members if m.request is None]
            for member in ended:
                members.remove(member)
                yield member.key, member.outcome
            if ended:
                stack = None
                continue
            if not members:
                return
            if stack is None or joined or any(m.new for m in members):
                stack = Stack(members, at_once)
            stack.go_on()
    finally:
        for member in members:
            with member.draws.in_place():
                member.training.close()


def in_one_go_on(device: torch.device) -> bool:
    """Whether many runs' epochs and answers in one go are worth it: on a GPU, whose time goes into starting small pieces of work."""
    return device.type == "cuda"


class Stack:
    """Some runs, each of which waits for answers, for the steps of an epoch, or for a pass forward.

    Args of init: whole: see `run_stacked`.
    """

    def __init__(self, members: Sequence[Member[Any, Any]], whole: bool):
        self.members, self.whole = list(members), whole
        self.epochs: Epochs | None = None
        self.layout = Layout([m.draws.here for m in members])
        self.models = [model_of(m.request) for m in members]
        self.model = mirror(self.models, self.layout).train()
        optimisers = [m.optimiser for m in members if m.optimiser is not None]
        self.rows = Rows(slots_of(self.model), optimisers)
        for member in members:
            member.new = False

    def go_on(self) -> None:
        """Answers to those that ask; where none does, an epoch of each run, or one batch."""
        if asking := {m: m.request for m in self.members if isinstance(m.request, Ask)}:
            self.tell(asking)
            return
        if self.whole and in_one_go([m.request for m in self.members]):
            requests: list[AllSteps] = self.asked(AllSteps)
            if self.epochs is None:
                self.epochs = Epochs(self.model, self.layout, self.rows, requests)
            self.answer([[sums] for sums in self.epochs.train(requests)])
            return
        for member in self.members:
            if isinstance(member.request, AllSteps):
                member.go_on(None)
        self.step()

    def tell(self, asking: Mapping[Member[Any, Any], Ask]) -> None:
        """Answers each; in one go where every run asks its own model the same."""
        asks = list(asking.values())
        own = [*map(id, self.models)] == [id(ask.model) for ask in asks]
        found = None
        if self.whole and len(asks) > 1 and own and the_same(asks):
            with suppress(torch.OutOfMemoryError):  # one by one there is room, as there was for their training
                found = answers(self.model, self.layout, asks)
        found = found or [ask.alone() for ask in asks]
        for member, each in zip(asking, found, strict=True):
            member.go_on(each)

    def step(self) -> None:
        """One batch of each run."""
        requests: list[Forward] = self.asked(Forward)
        output = self.forward(requests)
        own = [Output(*(self.cut(field, e) for field in output)) for e in range(len(requests))]  # type: ignore[arg-type]
        self.answer(own)
        self.asked(Backward)
        self.backward(output, own)
        self.answer([None] * len(own))
        self.answer(self.update(self.asked(Update)))

    def asked(self, kind: type) -> list[Any]:
        requests = [member.request for member in self.members]
        assert all(isinstance(request, kind) for request in requests), requests
        return requests

    def answer(self, answers: Sequence[Any]) -> None:
        for member, each in zip(self.members, answers, strict=True):
            member.go_on(each)

    def forward(self, requests: Sequence[Forward]) -> Output:
        """Answers about all batches, (E B, …)."""
        parts = {m: [r.steps[m] for r in requests] for m in requests[0].steps}
        whole = {m: fold(steps) for m, steps in parts.items()}
        self.layout.clips = [len(steps.mask) for steps in next(iter(parts.values()))]
        self.layout.steps = steps_of(self.model, {m: [s.mask.shape[1] for s in steps] for m, steps in parts.items()})
        place = next(iter(whole.values())).mask.device
        with torch.autocast(place.type, torch.bfloat16, enabled=requests[0].bf16):
            output: Output = self.model(whole.get("audio"), whole.get("visual"))
        return output

    def update(self, updates: Sequence[Update]) -> list[Tensor]:
        """Norms of each run, (groups,); zero for a group that nothing of is trained."""
        place = self.rows.values.device
        rates = {o: torch.stack([u.rates[o].to(place) for u in updates]) for o in self.rows.columns}
        norms = self.rows.update(rates, torch.tensor([u.clip_norm for u in updates], device=place))
        self.rows.taken_more(1)
        none = torch.zeros(len(updates), device=place)
        return list(torch.stack([norms.get(owner, none) for owner in updates[0].groups], 1))

    def cut(self, field: Tensor | None, e: int) -> Tensor | None:
        """A field of one run's answers, as a leaf that gradients end at."""
        if field is None:
            return None
        part = self.layout.unfold(field.detach())[e, : self.layout.clips[e]]
        return part.detach().requires_grad_(field.requires_grad)

    def backward(self, output: Output, own: Sequence[Output]) -> None:
        """From the gradients of each run's answers to those of the parameters."""
        tensors, gradients = [], []
        for number, field in enumerate(output):
            ends = [end for cut in own if (end := cut[number]) is not None]
            if field is None or all(end.grad is None for end in ends):
                continue
            whole = torch.zeros_like(field)
            grid = self.layout.unfold(whole)
            for e, end in enumerate(ends):
                if end.grad is not None:
                    grid[e, : len(end)] = end.grad
            tensors.append(field)
            gradients.append(whole)
        torch.autograd.backward(tensors, gradients)
        self.rows.collect()


def model_of(request: Request | None) -> FusionModel:
    """The model of a run that waits for answers, for an epoch or for a pass forward."""
    if isinstance(request, AllSteps):
        return request.learner.model
    assert isinstance(request, Ask | Forward)
    return request.model
