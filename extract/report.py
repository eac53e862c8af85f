"""An extraction's plan and outcome as lines of text."""

from collections import Counter
from collections.abc import Iterator

from .estimate import Estimate
from .extraction import Summary
from .plan import Plan
from .times import busy_share

MOST_REASONS = 5


def plan_lines(plan: Plan) -> Iterator[str]:
    """What was found and what will be made, a line each."""
    found = plan.dataset
    splits = ", ".join(f"{name} {count}" for name, count in plan.clips.counts("split").items())
    yield f"{found.name}: {len(plan.clips)} clips ({splits}), {len(found.classes)} classes, {found.task}"
    if plan.config.limit is not None:
        yield f"  limited to {len(plan.clips)} of {plan.found} clips, drawn at random"
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
    config = plan.config
    if config.cluster:
        place = f"cluster {config.cluster}"
    elif config.devices:
        place = f"{', '.join(config.devices)}, fed by {config.workers} worker(s)"
    else:
        place = f"{config.workers} worker(s) on cpu"
    shards = -(-len(plan.clips) // plan.shard_size)
    yield f"  -> {config.store}, {shards} shard(s) of {plan.shard_size} clips, {place}"


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


def estimate_line(plan: Plan, found: Estimate) -> str:
    """How long what is left will take."""
    if not found.left:
        return f"nothing is left to do: all {len(plan.clips)} clips are in {plan.config.store}"
    failed = f"; {found.failed} of them failed" if found.failed else ""
    where = "without the cluster's help, " if plan.config.cluster else ""
    clips = (
        f"{found.left} clips"
        if found.left == len(plan.clips)
        else f"the {found.left} of {len(plan.clips)} clips that are left"
    )
    return f"{where}about {human_time(found.seconds)} for {clips}, by {found.clips} tried here{failed}"


def profile_lines(summary: Summary) -> Iterator[str]:
    """Seconds of each stage, the longest first, and their share of all work; waiting is not work."""
    work = {k: s for k, s in summary.stages.items() if not k.startswith("wait")}
    total = sum(work.values()) or 1.0
    yield f"  {summary.wall_s:.1f} s from the first shard to the last; work of all processes, {total:.1f} s:"
    for stage, seconds in sorted(work.items(), key=lambda item: -item[1]):
        yield f"    {seconds:9.1f} s  {seconds / total:6.1%}  {stage}"
    if waited := {k: s for k, s in summary.stages.items() if k.startswith("wait")}:
        for stage, seconds in waited.items():
            yield f"    {seconds:9.1f} s          {stage}"
        yield f"  the device's process was busy {busy_share(summary.stages):.0%} of its time"


def human_time(seconds: float) -> str:
    """4000 -> 1.1 hours."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def human_bytes(n: float) -> str:
    """1234567 -> 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"
