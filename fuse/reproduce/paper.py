"""The numbers that the paper prints, to stand beside ours. In per cent, as printed.

*Source:* Tables 1 to 3 and Sec. 3.1, 4.2 and 4.3 of the BalanceMLA paper.
"""

from dataclasses import dataclass

LRW, LRW1000, IEMOCAP = "lrw", "lrw1000", "iemocap"  # as `Store.dataset` has them


@dataclass(frozen=True)
class Published:
    """One number or two of the paper.

    Attributes:
        dataset: as a store names it.
        accuracy, macro_f1: per cent; None where the paper has none. It does not say which F1 it prints.
        where: in the paper.
    """

    dataset: str
    accuracy: float | None
    macro_f1: float | None = None
    where: str = ""


def table1(lrw: tuple[float, float | None], lrw1000: tuple[float | None, float | None]) -> tuple[Published, ...]:
    found = (Published(LRW, *lrw, where="Table 1"), Published(LRW1000, *lrw1000, where="Table 1"))
    return tuple(p for p in found if p.accuracy is not None)


def table2(accuracy: float) -> tuple[Published, ...]:
    return (Published(IEMOCAP, accuracy, where="Table 2"),)


def table3(lrw1000: float | None, iemocap: float | None, where: str = "Table 3") -> tuple[Published, ...]:
    found = (Published(LRW1000, lrw1000, where=where), Published(IEMOCAP, iemocap, where=where))
    return tuple(p for p in found if p.accuracy is not None)


TEXT = {
    "fig1a": "Sec. 3.1 (IEMOCAP): sight converges at epoch 45, sound at epoch 69, at a learning rate of 5e-7.",
    "fig1b": "Sec. 3.1 (IEMOCAP): twice the length for sound is better than 1:1 by 1 to 2 points; the same section also names 1:2.",
    "fig1c": "Sec. 3.1 (LRW or LRW1000; the figure does not say): a longer visual input improves on 1:1.",
    "table1": "Table 1. The number of LRW clips it was tested on is not given; nor are seeds or intervals.",
    "table2": "Table 2: four classes of IEMOCAP, 1107 test clips; no seeds, no intervals.",
    "table3": "Table 3 adds part after part. Of leaving one out, Sec. 4.3 says: without ADF 83.5 and 65.8, without CLW 82.7 and 64.9, "
    "without BRFF 2.2 points less on both data sets.",
    "fig3": "Fig. 3 is a picture without numbers: BalanceMLA stays above Con, Single-Res and the Transformer, the more so the more "
    "is masked.",
}  # fmt: skip
