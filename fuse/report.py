"""A sweep's report: one HTML file that needs nothing else, its pictures also as PNG files beside it, and the numbers as JSON.

<out>/report.html   <out>/results.json   <out>/figures/*.png
"""

import base64
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from ..store.errors import StoreError
from .data import Features
from .figures import draw_accuracies, draw_alpha, draw_confusion, draw_curves, draw_ratios, drawing, render
from .progress import describe
from .run import Run, write_json
from .summary import Row, Summary

FORMAT = 1
CONFUSED_PAIRS = 12
LISTED_RUNS = 60


def results(summary: Summary, features: Features) -> dict[str, Any]:
    """What a sweep found, as plain JSON values."""
    best, best_run = summary.rows[summary.best], summary.best_run
    return {
        "format": FORMAT,
        "dataset": features.dataset,
        "task": features.task,
        "features": {
            "digest": features.digest,
            "streams": {s.name: s.digest for s in (features.audio, features.visual) if s is not None},
            "clips": {split: int((features.split == split).sum()) for split in ("train", "dev", "test")},
            "classes": len(features.classes),
            "notes": list(features.notes),
        },
        "best": {"label": best.label, "chosen_by": "mean accuracy on dev", "run": best_run.name},
        "not_told_apart_from_best": [summary.rows[i].label for i in summary.rivals],
        "rows": [row.to_dict() for row in summary.rows],
        "ratio_shares": summary.ratio_shares,
        "runs": [
            {
                "name": run.name,
                "config": run.config.to_dict(),
                "best": run.scores["best"],
                "test": {k: v for k, v in run.scores["test"].items() if k not in ("confusion", "alpha_per_class")},
            }
            for runs in summary.runs
            for run in runs
        ],
    }


def write_report(out: Path, summary: Summary, features: Features, provenance: Mapping[str, str]) -> Path:
    """Writes the three parts of the report under `out` and returns the path of the HTML file.

    Args:
        provenance: more lines for the section of that name.

    Raises:
        StoreError: it can't be written.
    """
    found = results(summary, features)
    pictures = draw(summary)
    html = template().render(
        dataset=features.dataset,
        task=features.task,
        summary=summary,
        best=summary.rows[summary.best],
        best_run=describe(summary.best_run.config),
        weighted_run=describe(weighted.config) if (weighted := summary.best_weighted_run) else None,
        rivals=[summary.rows[i].label for i in summary.rivals],
        found=found,
        pictures={name: data_uri(svg) for name, (svg, _) in pictures.items()},
        confused=confused_pairs(summary.best_run),
        provenance={**describe_features(features), **describe_runs(summary), **provenance},
        runs=found["runs"][:LISTED_RUNS],
    )
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for name, (_, png) in pictures.items():
            (out / "figures" / f"{name}.png").write_bytes(png)
        write_json(out / "results.json", found)
        path = out / "report.html"
        path.write_text(html, "utf-8")
    except OSError as error:
        raise StoreError(f"{out}: cannot write the report here: {error.strerror or error}") from error
    return path


def draw(summary: Summary) -> dict[str, tuple[bytes, bytes]]:
    """SVG and PNG bytes of every picture that this sweep has something to show in."""
    confusion = np.array(summary.best_run.scores["test"]["confusion"])
    weighted = summary.best_weighted_run
    with drawing():
        figures = {
            "accuracy": draw_accuracies(summary),
            "ratios": draw_ratios(summary),
            "curves": draw_curves(summary),
            "confusion": draw_confusion(confusion, summary.best_run.classes),
            "alpha": draw_alpha(weighted.scores["test"]["alpha_per_class"], weighted.classes) if weighted else None,
        }
        return {name: (render(f, "svg"), render(f, "png")) for name, f in figures.items() if f is not None}


def confused_pairs(run: Run) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most often: truth, answer, count, share of the truth's clips."""
    confusion = np.array(run.scores["test"]["confusion"])
    totals = confusion.sum(1)
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED_PAIRS]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    return [
        {"truth": run.classes[i], "answer": run.classes[j], "count": int(wrong[i, j]), "share": wrong[i, j] / totals[i]}
        for i, j in pairs
        if wrong[i, j] > 0
    ]


def describe_features(features: Features) -> dict[str, str]:
    clips = {split: int((features.split == split).sum()) for split in ("train", "dev", "test")}
    lines = {
        "data set": f"{features.dataset} ({features.task}), {len(features.classes)} classes",
        "clips": ", ".join(f"{count} {split}" for split, count in clips.items()),
    }
    for stream in (features.audio, features.visual):
        if stream is not None:
            lines[stream.name] = (
                f"{stream.input.length} features, {stream.rate_hz:g} steps a second, specification {stream.digest}"
            )
    return lines | {"features digest": features.digest}


def describe_runs(summary: Summary) -> dict[str, str]:
    """Versions and settings that all runs share, and which settings differ."""
    configs = [run.config.to_dict() for runs in summary.runs for run in runs]
    versions = {json.dumps(run.document["versions"], sort_keys=True) for runs in summary.runs for run in runs}
    same = [f"{k} {v}" for k, v in configs[0].items() if all(c[k] == v for c in configs)]
    return {
        "settings shared by all runs": ", ".join(same),
        "versions": "; ".join(", ".join(f"{k} {v}" for k, v in json.loads(text).items()) for text in sorted(versions)),
    }


def template() -> Any:
    """The page, with every value escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "spread": spread, "number": lambda v: "–" if v is None else f"{v:.3f}"}
    return environment.from_string(files(__package__).joinpath("report.html").read_text("utf-8"))


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def spread(row: Row) -> str:
    """Mean and standard deviation, in per cent."""
    return percent(row.mean) + (f" ± {100 * row.std:.1f}" if row.std is not None else "")


def data_uri(svg: bytes) -> str:
    """A picture inside the page: as an image it can neither run anything nor share names with its neighbours."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def table_columns(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """The table of a sweep for a terminal: heads and cells, without columns that are empty throughout."""
    columns: list[tuple[str, list[str]]] = [
        ("model", [row.label for row in rows]),
        ("seeds", [str(len(row.seeds)) for row in rows]),
        ("test acc %", [spread(row) for row in rows]),
        ("95 % interval", [f"{percent(row.interval[0])}-{percent(row.interval[1])}" for row in rows]),
        ("macro F1 %", [percent(row.macro_f1) for row in rows]),
        ("UAR %", [percent(row.uar) for row in rows]),
        ("audio head", [percent(row.audio) for row in rows]),
        ("visual head", [percent(row.visual) for row in rows]),
        ("audio alone", [percent(row.audio_alone) for row in rows]),
        ("visual alone", [percent(row.visual_alone) for row in rows]),
        ("alpha", ["–" if row.alpha is None else f"{row.alpha:.2f}" for row in rows]),
        ("dev acc %", [percent(row.dev) for row in rows]),
    ]
    return [(head, cells) for head, cells in columns if any(cell != "–" for cell in cells)]
