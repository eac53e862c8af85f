"""What each experiment of the paper runs: arms, ratios, noise, and what is drawn.

*Source:* Fig. 1 and 3, Tables 1 to 3. The convolution and the BGRU of Table 1 hear: Sec. 4.2 sets them against BalanceMLA-AO.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...store.errors import UnknownName
from .paper import Published, table1, table2, table3

RATIOS = ("1:1", "1:2", "2:1")
CUBE = {"audio": "audio.logspec-cube"}
EMOTION, LIPS = "emotion", "lip reading"


@dataclass(frozen=True)
class Arm:
    """One line of a table, or one curve.

    Attributes:
        label: as the paper calls it.
        model: a name of `models/table.py`.
        ratios: several are one arm: the best of them on dev stands for it.
        without: parts of BalanceMLA that it does without.
        streams: by modality, for arms that want a stream of their own.
        preferred: the same where the store has it; else the stream that the other arms use.
        published: the paper's numbers.
    """

    label: str
    model: str
    ratios: tuple[str, ...] = ("1:1",)
    without: tuple[str, ...] = ()
    streams: Mapping[str, str] = field(default_factory=dict, hash=False)
    preferred: Mapping[str, str] = field(default_factory=dict, hash=False)
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """Attributes:
    title: one line.
    tasks: of the paper's data sets.
    arms: in the order of the paper.
    figure: what is drawn: "curves", "bars" or "masks".
    masked: every arm is tested with parts of the sound's spectrum masked.
    hidden: every arm is tested without sound and without sight, for the contributions.
    """

    title: str
    tasks: tuple[str, ...]
    arms: tuple[Arm, ...]
    figure: str
    masked: bool = False
    hidden: bool = False


def by_ratio() -> tuple[Arm, ...]:
    return tuple(Arm(f"Transformer {ratio}", "transformer", (ratio,)) for ratio in RATIOS)


def probe(encoder: str, seen: str, audio: float, visual: float, both: float) -> tuple[Arm, ...]:
    """The three arms of one of Table 2's encoders, on the streams that hold its features.

    Args:
        seen: what it looks at, "mouth" or "video" (whole pictures), as its stream is called.
    """
    name = encoder.lower().replace("-", "")
    sound, sight = {"audio": f"audio.{name}"}, {"visual": f"{seen}.{name}"}
    return (
        Arm(f"{encoder} (audio-only)", "probe-ao", streams=sound, published=table2(audio)),
        Arm(f"{encoder} (visual-only)", "probe-vo", streams=sight, published=table2(visual)),
        Arm(encoder, "probe", streams={**sound, **sight}, published=table2(both)),
    )


EXPERIMENTS: dict[str, Experiment] = {
    "fig1a": Experiment(
        "Figure 1a: accuracy against epoch for sound, sight and both at 1:1",
        (EMOTION,),
        (
            Arm("audio-only", "transformer-ao"),
            Arm("visual-only", "transformer-vo"),
            Arm("audio-visual 1:1", "transformer"),
        ),
        "curves",
    ),
    "fig1b": Experiment(
        "Figure 1b: accuracy against epoch per ratio, emotion recognition",
        (EMOTION,),
        by_ratio(),
        "curves",
        hidden=True,
    ),
    "fig1c": Experiment("Figure 1c: accuracy against epoch per ratio, lip reading", (LIPS,), by_ratio(), "curves", hidden=True),
    "table1": Experiment(
        "Table 1: lip reading",
        (LIPS,),
        (
            Arm("spatio-temporal convolution", "stconv-ao", streams=CUBE,
                published=table1((96.70, 96.53), (79.86, 79.82))),
            Arm("2-layer BGRU", "bgru-ao", preferred=CUBE, published=table1((98.00, None), (None, None))),
            Arm("Transformer (audio-only)", "transformer-ao", published=table1((98.36, 97.96), (83.50, 83.28))),
            Arm("BalanceMLA-AO", "balancemla-ao", published=table1((98.40, 98.33), (84.32, 84.05))),
            Arm("Transformer (visual-only)", "transformer-vo", published=table1((91.58, 90.36), (65.50, 66.74))),
            Arm("BalanceMLA-VO", "balancemla-vo", published=table1((93.29, 93.37), (66.72, 65.28))),
            Arm("Con (concatenation)", "concat", published=table1((97.59, None), (83.45, None))),
            Arm("Single-Res (audio-centric)", "single-res", published=table1((97.59, None), (83.96, None))),
            Arm("Transformer (fusion)", "transformer", RATIOS, published=table1((98.40, 98.36), (85.50, 84.18))),
            Arm("BalanceMLA (fusion)", "balancemla", published=table1((98.50, 98.20), (86.42, 85.09))),
        ),
        "bars",
    ),
    "table2": Experiment(
        "Table 2: emotion recognition",
        (EMOTION,),
        (
            *probe("AV-HuBERT", "mouth", 58.54, 26.59, 46.45),
            *probe("AVBERT", "video", 60.94, 45.80, 61.87),
            *probe("MAViL", "video", 59.46, 43.03, 54.94),
            Arm("BalanceMLA (audio-only)", "balancemla-ao", published=table2(66.15)),
            Arm("BalanceMLA (visual-only)", "balancemla-vo", published=table2(68.73)),
            Arm("BalanceMLA (fusion)", "balancemla", published=table2(69.32)),
        ),
        "bars",
    ),
    "table3": Experiment(
        "Table 3: the parts of BalanceMLA, added one by one and left out one by one",
        (LIPS, EMOTION),
        (
            Arm("base model", "balancemla", without=("brff", "adf", "clw"), published=table3(82.1, 64.9)),
            Arm("+ AttentionBRFF", "balancemla", without=("adf", "clw"), published=table3(84.3, 67.1)),
            Arm("+ adaptive decision fusion", "balancemla", without=("clw",), published=table3(85.2, 68.0)),
            Arm("full model", "balancemla", published=table3(86.1, 69.3)),
            Arm("without AttentionBRFF", "balancemla", without=("brff",)),
            Arm("without adaptive decision fusion", "balancemla", without=("adf",), published=table3(83.5, 65.8, "Sec. 4.3")),
            Arm("without category-level weights", "balancemla", without=("clw",), published=table3(82.7, 64.9, "Sec. 4.3")),
        ),
        "bars",
    ),
    "fig3": Experiment(
        "Figure 3: accuracy against the share of the sound's spectrum that is masked",
        (LIPS, EMOTION),
        (
            Arm("Con (concatenation)", "concat"),
            Arm("Single-Res (audio-centric)", "single-res"),
            Arm("Transformer (fusion)", "transformer"),
            Arm("BalanceMLA (fusion)", "balancemla"),
        ),
        "masks",
        masked=True,
    ),
}  # fmt: skip


def experiment(name: str) -> Experiment:
    """Raises UnknownName, listing those that there are."""
    if name not in EXPERIMENTS:
        raise UnknownName("experiment", name, tuple(EXPERIMENTS))
    return EXPERIMENTS[name]
