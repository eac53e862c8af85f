"""The page's HTML: one file that needs nothing else. Its only script is its own, by digest; every word of the data stays text."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..facts import Facts
from ..run import Run
from ..summary import Summary
from ..tables import (
    Table,
    between,
    conditions_table,
    contributions_table,
    convergence_table,
    pairs_table,
    percent,
    spread,
    table_columns,
)
from .content import cut, page_numbers
from .training import Training

SCRIPTS = ("chart.js", "figure.js", "figures.js", "page.js")
CONFUSED_PAIRS = 12
LISTED_RUNS = 400
LISTED_PAIRS = 1500
PAPER_SETTINGS = 9  # that have room for their intervals side by side on a sheet
LONG_TEXT = 4000  # of a line of the provenance
CONTENTS = {
    "training": "In training",
    "settings": "All settings",
    "pairs": "Is the difference real?",
    "noise": "Noise",
    "contributions": "Contributions",
    "learning": "Learning",
    "classes": "Classes",
    "times": "Time",
    "provenance": "Provenance",
}


@dataclass(frozen=True)
class Live:
    """What a page says that is being served.

    Attributes:
        tag: of its content: another one is news.
        at_s: the time, in seconds since 1970.
        finished: how many runs are.
        problem: why the finished runs can't be summed up; empty where they can.
    """

    tag: str
    at_s: float
    finished: int
    problem: str = ""


def render_page(
    summary: Summary | None,
    facts: Facts | None,
    provenance: Mapping[str, str],
    unfinished: Sequence[Training] = (),
    live: Live | None = None,
) -> str:
    """The page as text.

    Args:
        summary, facts: of the finished runs; None where there is none.
        provenance: lines of the section of that name.
        unfinished: runs that are being trained.
        live: for a page that looks for news where it came from; None: one that stands alone.
    """
    numbers = page_numbers(summary, unfinished)
    style, script = for_old_browsers(asset("page.css")), wrapped("".join(asset(name) for name in SCRIPTS))
    values = of_summary(summary, numbers) if summary is not None else {"summary": None}
    there = parts_of(values, numbers, unfinished)
    return template().render(
        **values,
        facts=facts,
        title=title_of(summary),
        figures=numbers["figures"],
        contents=[(name, text) for name, text in CONTENTS.items() if name in there],
        trainings=unfinished,
        provenance=dict(provenance),
        live=live,
        numbers=inside_script(numbers),
        style=Markup(style),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704
        style_hash=digest(style),
        script_hash=digest(script),
    )


def title_of(summary: Summary | None) -> str:
    """In a browser's tab."""
    if summary is None:
        return "bmla: no finished run yet"
    best = summary.rows[summary.best]
    return f"{cut(best.label)}: {spread(best.clean)} %"


def of_summary(summary: Summary, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What the template tells of finished runs."""
    pairs, contributions = pairs_table(summary), contributions_table(summary)
    convergence, conditions = convergence_table(summary), conditions_table(summary)
    families: dict[str, list[int]] = {}
    for i, row in enumerate(summary.rows):
        families.setdefault(row.family, []).append(i)
    told = [c for c in summary.contributions if c.optimum or c.shapley]
    keys: dict[str, list[dict[str, Any]]] = {
        "pair_keys": [
            {"data-settings": f"{p.a} {p.b}", "data-condition": summary.conditions.index(p.condition)}
            for p in summary.pairs[:LISTED_PAIRS]
        ],
        "contribution_keys": [{"data-any": " ".join(map(str, families[c.family]))} for c in told],
        "convergence_keys": [{"data-settings": i} for i, row in enumerate(summary.rows) for _ in row.convergence],
    }
    check(contributions, keys["contribution_keys"])
    check(convergence, keys["convergence_keys"])
    runs = [run for run in numbers["runs"] if run["setting"] is not None]
    return {
        **keys,
        "summary": summary,
        "best": summary.rows[summary.best],
        "optima": sorted(summary.optima, key=lambda o: o.family != summary.rows[summary.best].family),
        "rivals": [summary.rows[i].label for i in summary.rivals],
        "columns": table_columns(summary.rows),
        "pairs": replace(pairs, lines=pairs.lines[:LISTED_PAIRS]),
        "more_pairs": max(len(pairs.lines) - LISTED_PAIRS, 0),
        "conditions": conditions,
        "many_settings": len(summary.rows) > PAPER_SETTINGS,
        "contributions": contributions,
        "convergence": convergence,
        "confused": confused_pairs(summary.runs[summary.best]),
        "runs": runs[:LISTED_RUNS],
        "more_runs": max(len(runs) - LISTED_RUNS, 0),
    }


def check(table: Table, keys: Sequence[Any]) -> None:
    assert len(table.lines) == len(keys), f"{table.title}: {len(table.lines)} lines of {len(keys)} settings"


def parts_of(values: Mapping[str, Any], numbers: Mapping[str, Any], unfinished: Sequence[Training]) -> set[str]:
    """The sections that the page has."""
    found = {"training"} if unfinished else set()
    found |= {"learning"} if "curves" in numbers["figures"] else set()
    if values["summary"] is None:
        return found
    found |= {name for name in ("pairs", "contributions") if values[name].lines}
    found |= {"noise"} if values["conditions"].lines else set()
    return found | {"settings", "classes", "times", "provenance"}


def confused_pairs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most often by all runs of a setting: truth, answer, count, share of the truth's."""
    confusion = np.sum([run.scores["test"]["confusion"] for run in runs], 0)
    classes, totals = runs[0].classes, confusion.sum(1)
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED_PAIRS]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    return [
        {"truth": classes[i], "answer": classes[j], "count": int(wrong[i, j]), "share": wrong[i, j] / totals[i]}
        for i, j in pairs
        if wrong[i, j] > 0
    ]


def template() -> Any:
    """The page, with every value escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "spread": spread, "between": between, "cut": cut, "clock": clock}
    environment.filters["long"] = lambda text: text if len(text) <= LONG_TEXT else text[: LONG_TEXT - 1] + "…"
    return environment.from_string(asset("page.html"))


@cache
def asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def for_old_browsers(style: str) -> str:
    """Browsers from before 2024 know no light-dark(): they get the light page, and no choice of themes."""
    light = re.sub(r"light-dark\(([^,()]+), [^,()]+\)", r"\1", style)
    light = re.sub("color-scheme: (light )?dark", "color-scheme: light", light)
    return f"{style}@supports not (color: light-dark(#fff, #000)) {{\n{light}.theme {{ display: none; }}\n}}\n"


def wrapped(script: str) -> str:
    """Names of its own."""
    return f'"use strict";\n(() => {{\n{script}}})();\n'


def digest(text: str) -> str:
    """What a content security policy names an inline part by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def inside_script(value: Any) -> Markup:
    """JSON that can neither end the element that it stands in nor begin another."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def clock(seconds: float) -> str:
    """Seconds since 1970 as date and time here."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
