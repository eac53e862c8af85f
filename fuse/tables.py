"""The tables of a summary: as text for people, and as records of plain values for CSV files.

The terminal, the page and the files all show these.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..store.errors import StoreError
from .convergence import Convergence
from .metrics import TOP
from .optimum import Contribution, Worth
from .pairs import Pair
from .rows import Cell, Row
from .statistics import Interval
from .summary import Summary

NONE = "–"
CURVES = {"model": "the model", "audio": "audio", "visual": "visual"}


@dataclass(frozen=True)
class Table:
    """Heads and lines of text; the first column names the line."""

    title: str
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""


def percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def spread(cell: Cell) -> str:
    """Mean and standard deviation over seeds, in per cent."""
    return percent(cell.mean) + (f" ± {100 * cell.std:.1f}" if cell.std is not None else "")


def of_folds(row: Row) -> str:
    """Mean and standard deviation over folds, in per cent: what papers on IEMOCAP's five sessions print."""
    return percent(row.fold_mean) + (f" ± {100 * row.fold_std:.1f}" if row.fold_std is not None else "")


def between(limits: Interval | None) -> str:
    """An interval in per cent."""
    return NONE if limits is None else f"{percent(limits[0])} to {percent(limits[1])}"


def p_value(p: float) -> str:
    return "<.0001" if p < 1e-4 else f"{p:.4f}"


def table_columns(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """The main table: heads and cells, without columns that are empty throughout."""
    columns: list[tuple[str, list[str]]] = [
        ("model", [row.label for row in rows]),
        ("seeds", [str(len(row.seeds)) for row in rows]),
        ("folds", [str(len(row.folds)) if row.folds else NONE for row in rows]),
        ("test acc %", [spread(row.clean) for row in rows]),
        ("95 % interval", [between(row.clean.interval) for row in rows]),
        ("mean of folds", [of_folds(row) for row in rows]),
        ("macro F1 %", [percent(row.clean.macro_f1) for row in rows]),
        ("UAR %", [percent(row.clean.uar) for row in rows]),
        ("top-5 %", [percent(row.clean.top_k_accuracy) if row.clean.top_k == TOP else NONE for row in rows]),
        ("audio head", [percent(row.clean.audio) for row in rows]),
        ("visual head", [percent(row.clean.visual) for row in rows]),
        ("audio alone", [percent(row.clean.audio_alone) for row in rows]),
        ("visual alone", [percent(row.clean.visual_alone) for row in rows]),
        ("alpha", [NONE if row.clean.alpha is None else f"{row.clean.alpha:.2f}" for row in rows]),
        ("dev acc %", [percent(row.dev) for row in rows]),
        ("epoch", [f"{row.best_epoch:.1f}" for row in rows]),
    ]
    return [(head, cells) for head, cells in columns if any(cell != NONE for cell in cells)]


def further_tables(summary: Summary) -> list[Table]:
    """All but the main one; those that have something to say."""
    made = (conditions_table(summary), pairs_table(summary), contributions_table(summary), convergence_table(summary))
    return [table for table in made if table.lines]


def conditions_table(summary: Summary) -> Table:
    """Accuracy of every setting under every condition."""
    lines = [
        (
            condition,
            *(
                NONE if cell is None else f"{percent(cell.mean)} ({between(cell.interval)})"
                for cell in (row.conditions.get(condition) for row in summary.rows)
            ),
        )
        for condition in summary.conditions
    ]
    return Table(
        "Accuracy under noise and without a modality",
        ("condition", *(row.label for row in summary.rows)),
        tuple(lines) if len(lines) > 1 else (),
        "Per cent of the test clips, with the 95 % interval over seeds and recordings. Nothing was trained or chosen on "
        "these clips. A condition that does not concern a model is clean to it.",
    )


def pairs_table(summary: Summary) -> Table:
    """Every comparison."""
    lines = [
        (
            f"{summary.rows[p.a].label} – {summary.rows[p.b].label}",
            p.condition,
            f"{100 * p.difference:+.1f}",
            f"{100 * p.interval[0]:+.1f} to {100 * p.interval[1]:+.1f}",
            p_value(p.holm),
            p_value(p.permutation),
            p_value(p.mcnemar),
            " to ".join(dict.fromkeys(map(p_value, p.mcnemar_seeds))),
            f"{p.clips} / {p.groups}",
        )
        for p in summary.pairs
    ]
    return Table(
        "Is the difference real?",
        ("settings", "condition", "points", "95 % interval", "p (Holm)", "p", "McNemar, pooled", "McNemar, seeds",
         "clips / recordings"),
        tuple(lines),
        f"p: exact permutation of whole recordings with all seeds; p (Holm): the same, corrected for the {len(lines)} comparisons of "
        "this table. The interval is over recordings and seeds. McNemar takes every clip for independent, and pooled over seeds each "
        "clip counts several times: where clips come from common recordings its p-values are too small. The p-values speak of new "
        "recordings for these trained models; only the interval counts new seeds.",
    )  # fmt: skip


def contributions_table(summary: Summary) -> Table:
    """What sound and sight contribute."""
    return Table(
        "What sound and sight contribute",
        (
            "settings",
            "condition",
            "best ratio",
            "95 %",
            "share of sound: ratio",
            "Shapley",
            "loss without it",
            "do they agree?",
        ),
        tuple(contribution_line(c) for c in summary.contributions if c.optimum or c.shapley),
        "The best ratio x:y puts the contributions at about x:y (Sec. 3.1). A share of .50 is balance; in brackets the 95 % interval. "
        "Shapley and loss are of "
        + ", ".join(dict.fromkeys(c.setting for c in summary.contributions if c.shapley) or ["no setting"])
        + ".",
    )


def contribution_line(c: Contribution) -> tuple[str, ...]:
    best = c.optimum
    return (
        c.family,
        c.condition,
        best.best if best else NONE,
        " to ".join(dict.fromkeys(best.interval)) if best else NONE,
        shares(best.share, best.share_interval) if best else NONE,
        worth_text(c.shapley),
        worth_text(c.loss),
        c.verdict,
    )


def worth_text(worth: Worth | None) -> str:
    return NONE if worth is None or worth.share is None else shares(worth.share, worth.interval)


def shares(share: float, limits: Interval | None) -> str:
    """A share with its interval."""
    return f"{share:.2f}" + (f" [{limits[0]:.2f}, {limits[1]:.2f}]" if limits else "")


def convergence_table(summary: Summary) -> Table:
    """When each curve came near its best."""
    lines = [
        (row.label, CURVES[name], *convergence_cells(found))
        for row in summary.rows
        for name, found in row.convergence.items()
    ]
    return Table(
        "Convergence",
        ("setting", "curve", "converged at", "95 % interval", "runs", "best epoch"),
        tuple(lines),
        "The first epoch from which smoothed dev accuracy stays within half a point of its best (one dev clip where that is "
        "more) for five epochs: mean over the runs that had converged when they ended. Audio and visual are the branches' own "
        "training where a model starts from trained branches, else its own heads.",
    )


def convergence_cells(found: Convergence) -> tuple[str, ...]:
    limits = found.interval
    return (
        NONE if found.mean is None else f"{found.mean:.1f}",
        NONE if limits is None else f"{limits[0]:.1f} to {limits[1]:.1f}",
        f"{len(found.known)} of {len(found.epochs)}",
        f"{found.best:.1f}",
    )


def records(summary: Summary) -> dict[str, list[dict[str, Any]]]:
    """The same as plain values, by the name of a file."""
    return {
        "accuracy": [
            {"setting": row.label, "condition": condition, "seeds": len(row.seeds), "folds": len(row.folds), **flat_cell(cell)}
            for row in summary.rows
            for condition, cell in row.conditions.items()
        ],
        "pairs": [flat_pair(summary, pair) for pair in summary.pairs],
        "contributions": [flat_contribution(c) for c in summary.contributions],
        "convergence": [
            {"setting": row.label, "curve": name, "mean": c.mean, **limits("", c.interval), "converged": len(c.known),
             "runs": len(c.epochs), "best_epoch": c.best}
            for row in summary.rows for name, c in row.convergence.items()
        ],
    }  # fmt: skip


def flat_cell(cell: Cell) -> dict[str, Any]:
    names = ("clips", "groups", "mean", "std", "macro_f1", "weighted_f1", "uar", "top_k", "top_k_accuracy", "audio", "visual",
             "audio_alone", "visual_alone", "alpha")  # fmt: skip
    plain = {name: getattr(cell, name) for name in names}
    return {**plain, **limits("", cell.interval), **limits("macro_f1_", cell.macro_f1_interval)}


def flat_pair(summary: Summary, pair: Pair) -> dict[str, Any]:
    names = ("condition", "clips", "groups", "seeds", "difference", "mcnemar", "permutation", "holm")
    return {
        "a": summary.rows[pair.a].label,
        "b": summary.rows[pair.b].label,
        **{name: getattr(pair, name) for name in names},
        **limits("", pair.interval),
        **limits("mcnemar_seeds_", pair.mcnemar_seeds),
        "mcnemar_each": dict(zip(map(str, pair.compared), pair.mcnemar_each, strict=True)),
    }


def flat_contribution(c: Contribution) -> dict[str, Any]:
    best = c.optimum
    values: dict[str, Any] = {}
    for name, worth in (("shapley", c.shapley), ("loss", c.loss)):
        values |= {f"{name}_{part}": getattr(worth, part, None) for part in ("audio", "visual", "share")}
        values |= limits(f"{name}_share_", worth.interval if worth else None)
    return {
        "settings": c.family,
        "condition": c.condition,
        "best_ratio": best.best if best else None,
        "ratio_low": best.interval[0] if best else None,
        "ratio_high": best.interval[1] if best else None,
        "ratio_share": best.share if best else None,
        **limits("ratio_share_", best.share_interval if best else None),
        **values,
        "verdict": c.verdict,
    }


def limits(prefix: str, given: Interval | None) -> dict[str, float | None]:
    low, high = given or (None, None)
    return {f"{prefix}low": low, f"{prefix}high": high}


def write_csv(folder: Path, summary: Summary) -> list[Path]:
    """One file a table; those without a line are left out.

    Raises:
        StoreError: they can't be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, lines in records(summary).items():
            if lines:
                path = folder / f"{name}.csv"
                with path.open("w", encoding="utf-8", newline="") as file:
                    writer = csv.DictWriter(file, list(lines[0]))
                    writer.writeheader()
                    writer.writerows(
                        {k: json.dumps(v) if isinstance(v, dict) else v for k, v in line.items()} for line in lines
                    )
                written.append(path)
    except OSError as error:
        raise StoreError(f"{folder}: cannot write tables here: {error.strerror or error}") from error
    return written
