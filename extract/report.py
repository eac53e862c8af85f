"""An extraction's plan and outcome as lines of text."""

from collections import Counter
from collections.abc import Iterator

from .extraction import Summary
from .plan import Plan

MOST_REASONS = 5


def plan_lines(plan: Plan) -> Iterator[str]:
    """What was found and what will be made, a line each."""
    found = plan.dataset
    splits = ", ".join(f"{name} {count}" for name, count in plan.clips.counts("split").items())
    yield f"{found.name}: {len(plan.clips)} clips ({splits}), {len(found.classes)} classes, {found.task}"
    if plan.config.limit is not None:
        yield f"  limited to {len(plan.clips)} of {len(found.clips)} clips, drawn at random"
    for note in found.notes:
        yield f"  {note}"
    if found.dropped:
        reasons = Counter(d.reason for d in found.dropped).most_common(MOST_REASONS)
        yield f"  left out: {len(found.dropped)} items ({'; '.join(f'{count} x {reason}' for reason, count in reasons)})"
    for stream in plan.streams:
        spec = stream.spec
        shape = " x ".join(map(str, (len(plan.clips), stream.steps, *spec.feature_shape)))
        size = human_bytes(stream.bytes(len(plan.clips), plan.mean_share))
        yield f"  {spec.name}: {shape} {spec.dtype} at {spec.rate_hz:g} Hz, about {size}"
    yield f"  -> {plan.config.store}, {plan.config.workers} worker(s) on {plan.config.tools.device}"


def summary_lines(summary: Summary) -> Iterator[str]:
    """How it came out, a line a stream and a line a reason."""
    yield f"{summary.store}: {summary.clips} clips, {summary.shards_written} shards written"
    for stream in summary.streams:
        share = f", {stream.valid / stream.steps:.1%} of the steps valid" if stream.steps else ""
        yield f"  {stream.stream}: {stream.done} done, {stream.failed} failed{share}"
        for reason, count in stream.failures.items():
            yield f"    {count} x {reason}"
    if any(s.failed for s in summary.streams):
        yield f"  each failed clip, with its reason: {summary.store}/ledger/STREAM/SHARD.json, or `bmla store failures {summary.store}`"


def human_bytes(n: float) -> str:
    """1234567 -> 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"
