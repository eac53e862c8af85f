"""An experiment's table: the paper's numbers beside ours, with intervals."""

from ..tables import (
    NONE,
    Table,
    between,
    contributions_table,
    convergence_cells,
    pairs_table,
    percent,
)
from .experiments import Arm
from .paper import TEXT
from .protocol import Outcome, curve_of_masks

HEADS = (
    "model",
    "ours: setting",
    "seeds",
    "accuracy %",
    "95 %",
    "macro F1 %",
    "95 %",
    "paper accuracy %",
    "paper F1 %",
    "paper: where",
)


def tables_of(name: str, outcome: Outcome, dataset: str) -> list[Table]:
    """All tables of an experiment.

    Args:
        name: of the experiment.
        dataset: that the runs are of.
    """
    main = accuracy_table(name, outcome, dataset)
    figure = outcome.plan.experiment.figure
    tables = [main]
    if figure == "curves":
        tables += [convergence_of(outcome)]
    if figure == "masks":
        tables += [masks_table(outcome)]
    further = [pairs_table(outcome.summary)]
    if len({row.ratio for row in outcome.summary.rows if row.ratio}) > 1:
        further.append(contributions_table(outcome.summary))
    return tables + [table for table in further if table.lines]


def accuracy_table(name: str, outcome: Outcome, dataset: str) -> Table:
    """One line an arm."""
    lines = [line_of(arm, index, outcome, dataset) for arm, index in outcome.rows]
    lines += [(label, f"not run: {reason}", *[NONE] * (len(HEADS) - 2)) for label, reason in outcome.plan.missing]
    return Table(outcome.plan.experiment.title, HEADS, tuple(lines), f"The paper: {TEXT[name]}")


def line_of(arm: Arm, index: int, outcome: Outcome, dataset: str) -> tuple[str, ...]:
    row = outcome.row(index)
    cell = row.clean
    mine = [p for p in arm.published if p.dataset == dataset]
    shown = mine or list(arm.published)
    where = ", ".join(dict.fromkeys(p.where for p in shown))
    if shown and not mine:
        where += f" ({', '.join(p.dataset for p in shown)}: other data set)"
    return (
        arm.label,
        row.label,
        str(len(row.seeds)) + (f" x {len(row.folds)} folds" if row.folds else ""),
        percent(cell.mean),
        between(cell.interval),
        percent(cell.macro_f1),
        between(cell.macro_f1_interval),
        printed([p.accuracy for p in shown]),
        printed([p.macro_f1 for p in shown]),
        where or NONE,
    )


def printed(values: list[float | None]) -> str:
    """Numbers of the paper, with its own digits."""
    known = any(v is not None for v in values)
    return ", ".join(NONE if v is None else f"{v:g}" for v in values) if known else NONE


def convergence_of(outcome: Outcome) -> Table:
    """Of each arm's own curve."""
    lines = [
        (arm.label, *convergence_cells(found))
        for arm, index in outcome.rows
        if (found := outcome.row(index).convergence.get("model")) is not None
    ]
    return Table("Convergence epochs", ("model", "converged at", "95 %", "runs", "best epoch"), tuple(lines))


def masks_table(outcome: Outcome) -> Table:
    """Accuracy of every arm under every mask factor."""
    arms = [(arm, outcome.row(index)) for arm, index in outcome.rows]
    curves = {arm.label: dict(curve_of_masks(row)) for arm, row in arms}
    factors = sorted({factor for points in curves.values() for factor in points})
    lines = []
    for factor in factors:
        cells = [
            row.conditions[curves[arm.label][factor]] if factor in curves[arm.label] else None for arm, row in arms
        ]
        texts = (NONE if c is None else f"{percent(c.mean)} ({between(c.interval)})" for c in cells)
        lines.append((f"{factor:g}", *texts))
    return Table(
        f"Accuracy against mask factor ({outcome.protocol})",
        ("mask factor", *(arm.label for arm, _ in arms)),
        tuple(lines),
        PROTOCOLS[outcome.protocol],
    )


PROTOCOLS = {
    "exact": "Exact: bins of the waveform's spectrum were masked and the features extracted anew.",
    "proxy": "PROXY, not the paper's protocol: the store has no masked sound, so parts of the cached feature axis were set to their "
    "mean instead. For the exact one, extract the stream's variants @mask=0.2,… first.",
}  # fmt: skip
