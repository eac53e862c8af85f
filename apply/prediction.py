"""One clip's answer, for a person and for a program."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..fuse.answer import Answer, Attention

SENSES = {"audio": "sound", "visual": "sight"}
DIGITS = 5


@dataclass(frozen=True)
class Prediction:
    """What a run says of a clip.

    Attributes:
        id: the clip's.
        start_s, end_s: the part of its file.
        classes: the run's class names.
        answer: None where neither modality could be used.
        missing: why the clip lacks a modality, by modality.
        rates_hz: steps a second, by modality.
        label: what the store says that the clip is; None where nobody says.
        notes: what a person should know.
    """

    id: str
    start_s: float
    end_s: float
    classes: tuple[str, ...]
    answer: Answer | None
    missing: dict[str, str]
    rates_hz: dict[str, float]
    label: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def error(self) -> str | None:
        """Why there is no answer."""
        if self.answer is not None:
            return None
        return "; ".join(f"no {SENSES[m]}: {reason}" for m, reason in self.missing.items())

    @property
    def best(self) -> str | None:
        """The most probable class."""
        return self.top(1)[0][0] if self.answer else None

    @property
    def alpha(self) -> dict[str, float] | None:
        """How much of the answer each modality decides, for the most probable class; None for a model without such weights."""
        if self.answer is None or self.answer.alpha is None:
            return None
        share = self.share_of_sound(int(self.answer.result.argmax()))
        return {"audio": share, "visual": 1 - share}

    @property
    def attention(self) -> dict[str, Attention]:
        """By the modality that asks, where its steps looked in the other; {} for a model without, or where it was not asked for."""
        return self.answer.attention if self.answer else {}

    def share_of_sound(self, number: int) -> float:
        """Alpha of a class."""
        assert self.answer is not None
        assert self.answer.alpha is not None
        alpha = self.answer.alpha
        return float(alpha[number if len(alpha) > 1 else 0])

    def top(self, count: int, head: str | None = None) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities. head: of this modality's own answer alone."""
        assert self.answer is not None
        logs = self.answer.result if head is None else self.answer.heads[head]
        order = np.argsort(-logs, kind="stable")[:count]
        return [(self.classes[i], math.exp(logs[i])) for i in order]

    def to_dict(self, count: int = 5, attention: bool = False) -> dict[str, Any]:
        """Plain JSON values.

        Args:
            count: of classes.
            attention: with the attention of every step.
        """
        document: dict[str, Any] = {"id": self.id, "start_s": self.start_s, "end_s": self.end_s}
        if self.label is not None:
            document["label"] = self.label
        document |= {"missing": self.missing, "notes": list(self.notes)}
        if self.answer is None:
            return document | {"error": self.error}
        document["classes"] = [self.described(name, share) for name, share in self.top(count)]
        document["alpha"] = None if self.alpha is None else {m: round(a, DIGITS) for m, a in self.alpha.items()}
        document["heads"] = {
            m: [{"class": name, "probability": round(p, DIGITS)} for name, p in self.top(count, m)]
            for m in self.answer.heads
        }
        if attention:
            looked = self.answer.attention.items()
            document["attention"] = [self.direction(asking, weights) for asking, weights in looked]
        return document

    def described(self, name: str, probability: float) -> dict[str, Any]:
        assert self.answer is not None
        entry: dict[str, Any] = {"class": name, "probability": round(probability, DIGITS)}
        if self.answer.alpha is not None:
            entry["alpha_audio"] = round(self.share_of_sound(self.classes.index(name)), DIGITS)
        return entry

    def direction(self, asking: str, attention: Attention) -> dict[str, Any]:
        """One direction's attention; step i of a modality begins i / rate seconds behind the clip's start."""
        answering = "visual" if asking == "audio" else "audio"
        return {
            "asking": asking,
            "answering": answering,
            "asking_rate_hz": self.rates_hz[asking],
            "answering_rate_hz": self.rates_hz[answering],
            "weights": np.round(attention.weights.astype(float), DIGITS).tolist(),
            "added": np.round(attention.added.astype(float), DIGITS).tolist(),
        }

    def lines(self, count: int = 5, attention: bool = False) -> list[str]:
        """The answer for a person: what, by which modality, and what was missing."""
        where = f"{self.id} {self.start_s:.2f}-{self.end_s:.2f} s"
        if self.answer is None:
            return [f"{where}: {self.error}"]
        truth = "" if self.label is None else f" (is {self.label})"
        found = [f"{where}{truth}: " + ", ".join(f"{name} {share:.1%}" for name, share in self.top(count))]
        parts = []
        if self.alpha is not None:
            parts.append("decided by " + ", ".join(f"{SENSES[m]} {share:.0%}" for m, share in self.alpha.items()))
        for modality in self.answer.heads:
            name, share = self.top(1, modality)[0]
            parts.append(f"{SENSES[modality]} says {name} {share:.1%}")
        found += ["  " + "; ".join(parts)] if parts else []
        for modality, reason in self.missing.items():
            found.append(f"  without {SENSES[modality]}, the other answers: {reason}")
        if attention:
            found += [self.summary(asking, weights) for asking, weights in self.answer.attention.items()]
        if attention and not self.answer.attention:
            why = "one of them is missing" if self.missing else "this model has none"
            found.append(f"  no attention between sound and sight: {why}")
        return found + [f"  {note}" for note in self.notes]

    def summary(self, asking: str, attention: Attention) -> str:
        """When the steps that are looked at most are, and how much more than if all were looked at alike."""
        answering = "visual" if asking == "audio" else "audio"
        mean = attention.weights.mean(0)
        best = int(mean.argmax())
        at_s = best / self.rates_hz[answering]
        return (
            f"  {SENSES[asking]} looks at {SENSES[answering]} most at {at_s:.2f} s ({mean[best] * len(mean):.1f} times an even share); "
            f"it adds {attention.added.mean():.0%} of a step's size"
        )
