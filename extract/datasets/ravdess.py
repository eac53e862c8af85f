"""RAVDESS, acted speech and song: Actor_01/01-01-06-01-02-01-01.mp4. Eight emotions, 24 actors.

*Source:* S. R. Livingstone and F. A. Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song", PLoS ONE
13 (2018). The name says: modality (01 both, 02 picture, 03 sound) - channel (01 speech, 02 song) - emotion - intensity -
statement - repetition - actor (odd: male). Modality 02 repeats the pictures of 01 and is not used.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...store.clips import Clip
from ...store.errors import MediaError
from .base import DataSet, Dropped, Incomplete, counted, ranked_split
from .folders import entries, fault, files_below, find_root
from .lengths import ends_of_many, longest_cut_s
from .options import options_from

NAME = re.compile(r"(0[123])-(0[12])-(0[1-8])-0[12]-0[12]-0[12]-(\d\d)\.mp4", re.ASCII)
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")  # 01 to 08
SUNG = EMOTIONS[:6]
CHANNELS = {"01": "speech", "02": "song"}
OTHER_MODALITIES = {
    "02": "modality 02: the picture alone, of a recording of modality 01",
    "03": "modality 03: sound alone",
}
ACTORS = tuple(f"{n:02}" for n in range(1, 25))
STATEMENTS = {"01": "kids are talking by the door", "02": "dogs are sitting by the door"}
LAYOUT = "actor folders such as Actor_01/ with 01-01-06-01-02-01-01.mp4"


@dataclass(frozen=True)
class RavdessOptions:
    """What is used, and the split.

    Attributes:
        channel: speech (8 emotions), song (6) or both.
        seed: of the split of the actors: of each sex 9 for train, 1 for dev and 2 for test.
    """

    channel: Literal["speech", "song", "both"] = "speech"
    seed: int = 0


def ravdess(root: Path, **options: Any) -> DataSet:
    """One clip a recording with picture and sound; its length comes from its header.

    Raises:
        UsageError: nothing recognised under `root`; unknown options.
    """
    chosen = options_from(RavdessOptions, options, "ravdess")
    folder = find_root(root, _has_actors, "ravdess", LAYOUT)
    dropped: list[Dropped] = []
    incomplete: list[Incomplete] = []
    paths = _recordings(folder, chosen, dropped)
    # Odd and even apart, so that both sexes are in every split.
    splits = ranked_split(ACTORS[0::2], chosen.seed) | ranked_split(ACTORS[1::2], chosen.seed)
    clips = []
    for path, ends in zip(paths, ends_of_many(paths), strict=True):
        source = path.relative_to(folder).as_posix()
        if isinstance(ends, MediaError):
            dropped.append(Dropped(source, str(ends)))
            continue
        actor, emotion = path.stem[-2:], EMOTIONS[int(path.stem[6:8]) - 1]
        clips.append(
            Clip(
                id=path.stem,
                start_s=0.0,
                end_s=round(longest_cut_s(ends.get("video"), ends.get("audio")), 6),
                label=emotion,
                split=splits[actor],
                speaker=actor,
                group=path.stem,
                video=source if "video" in ends else None,
                audio=source if "audio" in ends else None,
                text=STATEMENTS[path.stem[12:14]],
            )
        )
        incomplete += [
            Incomplete(path.stem, f"no {kind} stream in it") for kind in ("video", "audio") if kind not in ends
        ]
    return DataSet(
        name="ravdess",
        task="emotion",
        root=folder,
        classes=SUNG if chosen.channel == "song" else EMOTIONS,
        clips=tuple(clips),
        options=asdict(chosen),
        dropped=tuple(dropped),
        incomplete=tuple(incomplete),
        notes=(
            f"split by actor (seed {chosen.seed}), 18/2/4 of the 24, as many of each sex: no actor is in two splits",
            *counted(incomplete),
        ),
    )


def _has_actors(folder: Path) -> bool:
    """Actor_01/ lies in the folder, or in one in it (Video_Speech_Actor_01/Actor_01/)."""
    inside = [e for e in entries(folder) if e.is_dir()]
    if any(re.fullmatch(r"Actor_\d\d", e.name) for e in inside):
        return True
    return any(e.name.startswith("Video_S") and _has_actors(Path(e.path)) for e in inside)


def _recordings(folder: Path, options: RavdessOptions, dropped: list[Dropped]) -> list[Path]:
    """The files that become clips, sorted by name."""
    kept: dict[str, Path] = {}
    for entry in files_below(folder):
        path = Path(entry.path)
        if path.suffix.lower() != ".mp4":
            continue
        match = NAME.fullmatch(entry.name)
        if not match or match[4] not in ACTORS:
            reason: str | None = "is not named like 01-01-06-01-02-01-01.mp4"
        elif match[1] != "01":
            reason = OTHER_MODALITIES[match[1]]
        elif options.channel not in ("both", CHANNELS[match[2]]):
            reason = f"{CHANNELS[match[2]]}, and channel={options.channel}"
        elif CHANNELS[match[2]] == "song" and EMOTIONS[int(match[3]) - 1] not in SUNG:
            reason = "there is no song with this emotion"
        elif path.stem in kept:
            reason = f"the same recording as {kept[path.stem].relative_to(folder).as_posix()}"
        else:
            reason = fault(entry)
        if reason:
            dropped.append(Dropped(path.relative_to(folder).as_posix(), reason))
        else:
            kept[path.stem] = path
    return [kept[name] for name in sorted(kept)]
