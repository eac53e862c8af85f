"""How two stores differ: clips, streams, specifications, shards; a line each."""

from collections.abc import Iterator

from .spec import differences
from .store import Store
from .transfer import comparable, head_dict

MOST_CLIPS = 5


def diff(a: Store, b: Store) -> Iterator[str]:
    """Lines such as `audio.hubert: parameters.layer: 9 here, 12 there` ("here" is `a`); none where they are equal."""
    yield from differences(comparable(a), comparable(b))
    if a.identity.clips_digest != b.identity.clips_digest:
        yield from diff_clips(a, b)
    mine, theirs = set(a.streams()), set(b.streams())
    for stream in sorted(mine ^ theirs):
        yield f"{stream}: only {'here' if stream in mine else 'there'}"
    for stream in sorted(mine & theirs):
        lines = list(differences(head_dict(a, stream), head_dict(b, stream)))
        yield from (f"{stream}: {line}" for line in lines)
        if a.shard_size == b.shard_size and a.shards == b.shards:
            yield from diff_shards(a, b, stream)


def diff_clips(a: Store, b: Store) -> Iterator[str]:
    """Clips that only one has, and clips whose rows differ."""
    mine, theirs = ({row["id"]: row for row in s.clips.table.to_pylist()} for s in (a, b))
    for where, only in (("here", mine.keys() - theirs.keys()), ("there", theirs.keys() - mine.keys())):
        if only:
            yield f"clips: {len(only)} only {where} ({', '.join(sorted(only)[:MOST_CLIPS])}{', …' if len(only) > MOST_CLIPS else ''})"
    other = sorted(clip for clip in mine.keys() & theirs.keys() if mine[clip] != theirs[clip])
    for clip in other[:MOST_CLIPS]:
        yield f"clip {clip}: {'; '.join(differences(mine[clip], theirs[clip]))}"
    if len(other) > MOST_CLIPS:
        yield f"clips: {len(other)} differ in all"


def diff_shards(a: Store, b: Store, stream: str) -> Iterator[str]:
    """Shards that only one has finished, and shards with other features."""
    mine, theirs = ({e.shard: e.digest for e in s.entries(stream)} for s in (a, b))
    for where, only in (("here", mine.keys() - theirs.keys()), ("there", theirs.keys() - mine.keys())):
        if only:
            yield f"{stream}: {len(only)} shards finished only {where}: {numbers(sorted(only))}"
    other = sorted(n for n in mine.keys() & theirs.keys() if mine[n] != theirs[n])
    if other:
        yield f"{stream}: {len(other)} shards with other features: {numbers(other)}"


def numbers(values: list[int]) -> str:
    """1, 2, 3, 7 -> 1-3, 7."""
    runs: list[list[int]] = []
    for n in values:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in runs)
