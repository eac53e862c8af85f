"""What sound and sight contribute: the ratio at which a model is best, its Shapley values, and what it loses without either.

*Source:* Sec. 3.1: "If the model attains its optimal performance at a ratio x : y, we propose that their relative contributions to the
task can be approximated as x : y." The optimum of one run is noise: here it is the ratio of the best mean over seeds, and the
interval is that of the best ratio over a bootstrap of seeds and recordings. Shapley values and the losses (`contribution.py`) ask
a trained model instead, so the three can contradict each other: `Contribution.verdict` says whether they do.

A share is that of sound: 0.5 is balance, 1 sound alone. Shapley shares leave [0, 1] where a modality does harm.

Shape legend: r bootstrap rounds, k ratios.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .answers import Answers
from .condition import Condition
from .contribution import shapley
from .ratio import parse_ratio
from .statistics import INTERVAL, Interval, bootstrap_mean, interval

BALANCE = 0.5
LEAST_GAIN = 1e-9  # of two modalities together: below, there is nothing to share


@dataclass(frozen=True)
class Optimum:
    """The best ratio of one family of settings under one condition.

    Attributes:
        family, condition: of the settings.
        best: the ratio of the greatest mean accuracy.
        ratios: with sound's part growing; means, shares: accuracy of each, and in which share of the rounds it was the best. A round
            that several win is shared among them.
        interval: the lowest and highest of the ratios that win the middle 95 % of the rounds.
    """

    family: str
    condition: str
    best: str
    ratios: tuple[str, ...]
    means: tuple[float, ...]
    shares: tuple[float, ...]
    interval: tuple[str, str]

    @property
    def share(self) -> float:
        """Of sound."""
        return audio_share(self.best)

    @property
    def share_interval(self) -> Interval:
        return audio_share(self.interval[0]), audio_share(self.interval[1])


@dataclass(frozen=True)
class Worth:
    """What each modality is worth by one measure, in accuracy, and the share of sound; None where nothing is to be shared.

    Attributes:
        interval: of the share; None where it is not known.
    """

    audio: float
    visual: float
    share: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Contribution:
    """The three measures side by side, for one family of settings under one condition.

    Attributes:
        setting: label of the setting that the second and third are of.
        optimum: None where it was trained with one ratio.
        shapley: None where it was not tested without each modality.
        loss: of accuracy without sound, and without sight.
    """

    family: str
    condition: str
    setting: str
    optimum: Optimum | None
    shapley: Worth | None
    loss: Worth | None

    @property
    def sides(self) -> dict[str, str]:
        """By measure: "sound", "sight", or "neither" where the interval has balance in it."""
        found: dict[str, str] = {}
        if self.optimum is not None:
            found["best ratio"] = side(self.optimum.share, self.optimum.share_interval)
        for name, worth in (("Shapley", self.shapley), ("loss without it", self.loss)):
            if worth is not None and worth.share is not None:
                found[name] = side(worth.share, worth.interval)
        return found

    @property
    def verdict(self) -> str:
        """One line: do the measures agree?"""
        found = self.sides
        clear = {s for s in found.values() if s != "neither"}
        open_ones = [name for name, s in found.items() if s == "neither"]
        if len(found) < 2:
            return "one measure alone: nothing to compare" if found else "not measured"
        if len(clear) == 2:
            return "they disagree: " + ", ".join(f"{name} says {s}" for name, s in found.items() if s != "neither")
        if not clear:
            return "none of them tells which contributes more"
        line = f"{clear.pop()} contributes more"
        return f"they agree: {line}" if not open_ones else f"{line}; {' and '.join(open_ones)} does not tell"


def side(share: float, limits: Interval | None) -> str:
    """Which modality a share is clearly on the side of."""
    low, high = limits or (share, share)
    return "sound" if low > BALANCE else "sight" if high < BALANCE else "neither"


def audio_share(ratio: str) -> float:
    """x / (x + y) of x:y."""
    parts = parse_ratio(ratio)
    return parts.audio / sum(parts)


def optimum(family: str, condition: str, ratios: Mapping[str, Answers]) -> Optimum | None:
    """The best ratio.

    Args:
        ratios: the answers of each.

    Returns:
        Over the seeds that all ratios have, where some have more than others. None for fewer than two ratios, for no seed that all
        have, or where they were not tested on the same clips.
    """
    ordered = sorted(ratios, key=audio_share)
    answers = with_as_many_seeds([ratios[name] for name in ordered])
    if len(answers) < 2 or not answers[0].seeds:
        return None
    if any(not np.array_equal(a.ids, answers[0].ids) for a in answers):
        return None
    table = np.stack([bootstrap_mean(a.right, a.groups) for a in answers])  # (k, r)
    wins = table >= table.max(0) - 1e-12
    shares = (wins / wins.sum(0)).mean(1)
    means = tuple(float(a.right.mean()) for a in answers)
    low, high = np.searchsorted(np.cumsum(shares), np.array(INTERVAL) / 100 + [1e-12, -1e-12])
    return Optimum(
        family,
        condition,
        ordered[int(np.argmax(means))],
        tuple(ordered),
        means,
        tuple(map(float, shares)),
        (ordered[low], ordered[min(high, len(ordered) - 1)]),
    )


def with_as_many_seeds(answers: Sequence[Answers]) -> list[Answers]:
    """The same of each as they are, where each has as many seeds; else of the seeds that all have."""
    if len({len(a.seeds) for a in answers}) <= 1:
        return list(answers)
    common = sorted(set.intersection(*(set(a.seeds) for a in answers)))
    return [a.of_seeds([a.seeds.index(seed) for seed in common]) for a in answers]


def alone_under(condition: Condition, modality: str, streams: Mapping[str, str]) -> Condition:
    """A condition with only one modality shown, as noisy as it is there.

    Args:
        streams: the model's, by modality.
    """
    variants = tuple(v for v in condition.variants if v.partition("@")[0] == streams[modality])
    return Condition(variants, tuple(m for m in streams if m != modality))


def shapley_worth(both: Answers, audio: Answers, visual: Answers) -> Worth:
    """From the answers with both modalities shown and with each alone, over the clips that have both; see `contribution.py`."""
    both, audio, visual = with_both(both, audio, visual)
    chance = (both.labels == np.bincount(both.labels).argmax())[None]
    (v, r), (v_a, r_a), (v_v, r_v) = (measured(a) for a in (both, audio, visual))
    values = shapley(v, v_a, v_v, float(chance.mean()))
    everywhere: Any = (r, r_a, r_v, bootstrap_mean(chance, both.groups))
    rounds: dict[str, Any] = dict(shapley(*everywhere))  # the same formula in each round
    return worth(values["audio"], values["visual"], rounds["audio"], rounds["visual"])


def loss_worth(both: Answers, audio: Answers, visual: Answers) -> Worth:
    """How much accuracy is lost with each modality hidden, over the clips that have both."""
    (all_, r_all), (a, r_a), (v, r_v) = map(measured, with_both(both, audio, visual))
    return worth(all_ - v, all_ - a, r_all - r_v, r_all - r_a)


def with_both(both: Answers, *others: Answers) -> tuple[Answers, ...]:
    """The same clips of each: those that have both modalities."""
    ids = both.ids[both.both]
    return both.take(both.both), *(other.take(np.searchsorted(other.ids, ids)) for other in others)


def measured(answers: Answers) -> tuple[float, np.ndarray]:
    """Accuracy, and (r,) the same in each round."""
    return float(answers.right.mean()), bootstrap_mean(answers.right, answers.groups)


def worth(audio: float, visual: float, audio_rounds: np.ndarray, visual_rounds: np.ndarray) -> Worth:
    total, rounds = audio + visual, audio_rounds + visual_rounds
    if total <= LEAST_GAIN or (rounds <= LEAST_GAIN).mean() > INTERVAL[0] / 100:
        return Worth(audio, visual, None, None)
    positive = rounds > LEAST_GAIN
    return Worth(audio, visual, audio / total, interval(audio_rounds[positive] / rounds[positive]))
