"""A sweep's report: one HTML file that needs nothing else (`page`), pictures for papers as files beside it, and the numbers as JSON.

<out>/report.html   <out>/results.json   <out>/figures/*.png and *.svg
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..store.errors import StoreError
from .facts import Facts
from .figures import (
    draw_accuracies,
    draw_alpha,
    draw_alpha_noise,
    draw_conditions,
    draw_confusion,
    draw_contributions,
    draw_curves,
    draw_ratios,
    drawing,
    render,
)
from .page import render_page
from .run import write_json
from .summary import Summary
from .tables import records

FORMAT = 1


def results(summary: Summary, facts: Facts) -> dict[str, Any]:
    """What a sweep found, as plain JSON values."""
    best, best_run = summary.rows[summary.best], summary.best_run
    tables = records(summary)
    return {
        "format": FORMAT,
        "dataset": facts.dataset,
        "task": facts.task,
        "features": {
            "digests": list(facts.digests),
            "streams": {s.name: s.digest for s in facts.streams},
            "clips": facts.clips,
            "classes": facts.classes,
            "notes": list(facts.notes),
        },
        "best": {"label": best.label, "chosen_by": "mean accuracy on dev", "run": best_run.name},
        "not_told_apart_from_best": [summary.rows[i].label for i in summary.rivals],
        "rows": [row.to_dict() for row in summary.rows],
        "pairs": tables["pairs"],
        "contributions": tables["contributions"],
        "ratio_shares": {o.family: dict(zip(o.ratios, o.shares, strict=True)) for o in summary.optima},
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


def write_report(out: Path, summary: Summary, facts: Facts, provenance: Mapping[str, str]) -> Path:
    """Writes the three parts of the report under `out` and returns the path of the HTML file.

    Args:
        provenance: more lines for the section of that name.

    Raises:
        StoreError: it can't be written.
    """
    found = results(summary, facts)
    pictures = draw(summary)
    html = render_page(summary, facts, provenance_of(summary, facts, provenance))
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for name, (svg, png) in pictures.items():
            (out / "figures" / f"{name}.svg").write_bytes(svg)
            (out / "figures" / f"{name}.png").write_bytes(png)
        write_json(out / "results.json", found)
        path = out / "report.html"
        path.write_text(html, "utf-8")
    except OSError as error:
        raise StoreError(f"{out}: cannot write the report here: {error.strerror or error}") from error
    return path


def draw(summary: Summary) -> dict[str, tuple[bytes, ...]]:
    """SVG and PNG bytes of every picture that this sweep has something to show in."""
    confusion = np.array(summary.best_run.scores["test"]["confusion"])
    weighted = summary.best_weighted_run
    with drawing():
        figures = {
            "accuracy": draw_accuracies(summary),
            "ratios": draw_ratios(summary),
            "conditions": draw_conditions(summary),
            "contributions": draw_contributions(summary),
            "curves": draw_curves(summary),
            "confusion": draw_confusion(confusion, summary.best_run.classes),
            "alpha_noise": draw_alpha_noise(summary),
            "alpha": draw_alpha(weighted.scores["test"]["alpha_per_class"], weighted.classes) if weighted else None,
        }
        return {name: render(f, "svg", "png") for name, f in figures.items() if f is not None}


def provenance_of(summary: Summary, facts: Facts, more: Mapping[str, str]) -> dict[str, str]:
    """Where the numbers come from: lines with a name each."""
    return {**describe_facts(facts), **describe_runs(summary), **more}


def describe_facts(facts: Facts) -> dict[str, str]:
    lines = {
        "data set": f"{facts.dataset} ({facts.task}), {facts.classes} classes",
        "clips": ", ".join(f"{count} {split}" for split, count in facts.clips.items()),
    }
    for s in facts.streams:
        lines[s.name] = f"{s.length} features, {s.rate_hz:g} steps a second, specification {s.digest}"
    return lines | {"features digest": ", ".join(facts.digests)}


def describe_runs(summary: Summary) -> dict[str, str]:
    """Stores, commands, versions and time of the runs, and the settings that all of them share."""
    runs = [run for of_row in summary.runs for run in of_row]
    configs = [run.config.to_dict() for run in runs]
    versions = {json.dumps(run.document["versions"], sort_keys=True) for run in runs}
    documents = [run.document for run in runs]
    told = {name: dict.fromkeys(str(d[name]) for d in documents if name in d) for name in ("store", "command")}
    seconds = [d["seconds"] for d in documents if isinstance(d.get("seconds"), int | float)]
    same = [f"{k} {v}" for k, v in configs[0].items() if all(c[k] == v for c in configs)]
    return {
        **{f"{name} of the runs": "; ".join(values) for name, values in told.items() if values},
        "runs": f"{len(runs)}, {sum(seconds) / 60:.1f} minutes of training and testing",
        "settings shared by all runs": ", ".join(same),
        "versions": "; ".join(", ".join(f"{k} {v}" for k, v in json.loads(text).items()) for text in sorted(versions)),
    }
