"""The page: one HTML file that needs nothing else, every word of the store's escaped and cut to a bounded length."""

import base64
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from ..errors import StoreError
from .facts import Spread
from .figures import COLOURS, Panel, draw_classes, draw_features, draw_histograms, drawing, render
from .look import Look
from .survey import Survey

TABLED_CLASSES = 40  # more of them are drawn
LISTED_FAILURES = 40
LISTED_STREAMS = 100
TEXT_LENGTH = 120  # of anything that the store names
MESSAGE_LENGTH = 300


def render_page(found: Survey) -> str:
    """The page as text."""
    with drawing():
        charts = {look.facts.name: draw_look(look) for look in found.looks}
        classes = uri(draw_classes(found.counts)) if len(found.classes) > TABLED_CLASSES else None
        durations = uri(draw_histograms([Panel("duration of a clip, seconds", found.durations)]))
    streams = [*(look.facts for look in found.looks), *found.others]
    return template().render(
        found=found,
        duration=Spread.of(found.durations),
        durations=durations,
        class_chart=classes,
        extremes=extremes(found) if classes else [],
        streams=[stream.to_dict() for stream in streams[:LISTED_STREAMS]],
        more_streams=max(len(streams) - LISTED_STREAMS, 0),
        charts=charts,
        panels={look.facts.name: spreads_of(look) for look in found.looks},
        failures=found.failures[:LISTED_FAILURES],
        more_failures=max(len(found.failures) - LISTED_FAILURES, 0),
    )


def write_page(path: Path, text: str) -> None:
    """Raises StoreError where it can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", errors="replace")
    except OSError as error:
        raise StoreError(f"{path}: cannot write the page here: {error.strerror or error}") from error


def panels_of(look: Look) -> list[Panel]:
    """Histograms of a stream: what is known of its clips."""
    stream, values = look.facts, look.values
    rate = f"{stream.head.spec.rate_hz:g} a second"
    panels = [
        Panel(f"steps of a clip ({rate})", stream.lengths[stream.lengths > 0], whole=True),
        Panel("valid share of a clip's steps", 1 - look.invalid, share=True),
        Panel("largest jump, grey levels", look.jumps),
        Panel("values", values.some if values else np.zeros(0)),
        *(Panel(name, column, share=is_share(name, column)) for name, column in stream.quality.items()),
    ]
    return [panel for panel in panels if np.isfinite(panel.values).any()]


def is_share(name: str, column: np.ndarray) -> bool:
    """Named a share, and from 0 to 1."""
    return name.endswith("_share") and np.nanmin(column, initial=0) >= 0 and np.nanmax(column, initial=1) <= 1


def spreads_of(look: Look) -> dict[str, Spread]:
    """The same in numbers."""
    spreads = {panel.title: Spread.of(panel.values.astype(float)) for panel in panels_of(look)}
    return {title: spread for title, spread in spreads.items() if spread}


def draw_look(look: Look) -> dict[str, str]:
    """A stream's charts by name, as URIs."""
    panels, values = panels_of(look), look.values
    charts = {"histograms": uri(draw_histograms(panels))} if panels else {}
    if values is not None and values.steps and len(values.mean) > 1:
        charts["features"] = uri(draw_features(values.mean, values.std))
    return charts


def extremes(found: Survey, most: int = 5) -> list[tuple[str, int]]:
    """The classes with most clips and those with fewest, and how many they have."""
    total = sum(found.counts.values(), np.zeros(len(found.classes), np.int64))
    order = np.argsort(-total, kind="stable").tolist()
    return [(found.classes[i], int(total[i])) for i in (*order[:most], *order[-most:])]


def template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "cut": cut,
        "message": partial(cut, limit=MESSAGE_LENGTH),
        "number": number,
        "duration": duration_text,
        "spread": spread_text,
        "jpeg": partial(data_uri, kind="image/jpeg"),
    }
    environment.globals |= {"mark": COLOURS[1]}
    return environment.from_string(files(__package__).joinpath("page.html").read_text("utf-8"))


def cut(text: object, limit: int = TEXT_LENGTH) -> str:
    """On one line, and not longer than a page bears."""
    line = " ".join(str(text)[: 4 * limit].split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration_text(hours: float) -> str:
    """0.0039 -> 14 seconds; 0.5 -> 30 minutes; 1234.5 -> 1,234 hours."""
    for unit, an_hour in (("hours", 1), ("minutes", 60)):
        if hours * an_hour >= 1:
            return f"{number(float(f'{hours * an_hour:.3g}')) if hours < 1000 else number(hours)} {unit}"
    return f"{hours * 3600:.3g} seconds"


def spread_text(spread: Spread | Mapping[str, Any] | None) -> str:
    """For the alternative text of a chart."""
    if spread is None:
        return "no number"
    values: Mapping[str, Any] = vars(spread) if isinstance(spread, Spread) else spread
    return f"{number(values['least'])} to {number(values['most'])}, median {number(values['median'])}"


def uri(figure: Figure) -> str:
    return data_uri(render(figure), "image/svg+xml")


def data_uri(data: bytes, kind: str) -> str:
    """A picture inside the page: as an image it can neither run anything nor share names with its neighbours."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
