"""Makes the demo's data set: ten words, spoken by a synthesiser and by an animated portrait, as files of LRW's layout.

The words are chosen so that each sense alone confuses some: MILLION and BILLION, MATCHES and PATCHES, MOTION and POTION
look alike; FIRST and THIRST, MOTION and NOTION sound alike in noise. Noise, effort and idle movement were tuned so that
nothing is at its ceiling: on the test split of seed 0 (100 clips) a linear classifier gets 0.80 by sound (audio.logspec),
0.70 by sight (mouth.dct) and 0.88 by both; a small BalanceMLA 0.88, 0.65 and 0.96.
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np

from ...store.errors import BmlaError, UsageError
from ...store.processes import parcel
from .face import TalkingFace
from .scene import CLIP_S, WIDTH_PX, WORD_CENTRE_S, film, mix, record, word_length_s
from .speech import Speech, Utterance, speak
from .visemes import SHAPE, mouth_shapes

GENERATOR = 1  # counts up when the same seed gives other clips
MARKER = "generated.json"
WORDS = ("ABOUT", "BILLION", "FIRST", "MATCHES", "MILLION", "MOTION", "NOTION", "PATCHES", "POTION", "THIRST")
CLIPS_PER_WORD, CLIPS_PER_WORD_SMALL = 40, 10
DEV_SHARE, TEST_SHARE = 0.1, 0.25
FPS = 25
FRAMES = round(CLIP_S * FPS)
# Not every build of FFmpeg has an H.264 encoder; with "mpeg4" the encoder ignores the options meant for libx264.
VIDEO_CODEC: Literal["libx264", "mpeg4"] = "libx264" if "libx264" in av.codecs_available else "mpeg4"
EFFORT = (0.45, 1.0)  # how clearly a clip's speaker moves the lips, drawn for each parameter
IDLE = 0.06  # movement of the lips that has nothing to do with the word, standard deviation
JITTER_S = 0.015  # between lips and sound, standard deviation
VOICES = (
    "gmw/en+m1", "gmw/en+f2", "gmw/en-US+m3", "gmw/en-US+f1", "gmw/en-US+Annie", "gmw/en-GB-scotland+m2",
    "gmw/en-GB-x-rp+m4", "gmw/en-GB-x-rp+f4", "gmw/en-GB-x-gbclan+m5", "gmw/en-GB-x-gbcwmd+f3", "gmw/en-US-nyc+m7",
)  # fmt: skip
TEST_VOICES = ("gmw/en-US+m2", "gmw/en+f3", "gmw/en-GB-scotland+f1", "gmw/en-GB-x-rp+m6")  # never in train or dev
BABBLE_TEXT = (
    "the people who came about the matter were many and the first of them had a notion that a million is not enough"
)
BABBLE_S = 8.0
README = """GENERATED DATA. Nothing in this folder is a recording of speech.

Made by `bmla demo`: {clips} clips of {words} words in the layout of LRW (WORD/split/WORD_00001.mp4 and .txt).
Sight: scikit-image's portrait `astronaut` (Eileen Collins, photographed by NASA, public domain), its mouth animated by
computer. She never said any of this. Sound: the speech synthesiser eSpeak NG, in noise. Voices of the test split that
are in no other: {unseen}.

It shows that the path from files to figures works. Its figures say nothing about real speech.
"""


@dataclass(frozen=True)
class ClipPlan:
    """One clip to make; `place` counts from 1 within its word and split."""

    word: str
    split: str
    place: int
    utterance: Utterance
    seed: tuple[int, ...]


def make_demo(
    root: Path,
    clips_per_word: int | None = None,
    seed: int = 0,
    small: bool = False,
    progress: Callable[[int, int], None] | None = None,
    words: Sequence[str] = WORDS,
    workers: int | None = None,
) -> Path:
    """Generates the data set in `root`, or leaves the one that is there if it was made from the same parameters.

    Args:
        root: the folder to make. Written beside and renamed when whole.
        clips_per_word: 40, or 10 with `small`, where not given; split into train, dev and test.
        progress: called with (clips done, clips in all).
        words: some of WORDS.
        workers: processes; None: one a core.

    Returns:
        `root`.

    Raises:
        UsageError: `root` holds something else; fewer than 3 clips a word; unknown words; a negative seed.
        BmlaError: the packages of the demo are not installed.
    """
    count = clips_per_word if clips_per_word is not None else (CLIPS_PER_WORD_SMALL if small else CLIPS_PER_WORD)
    if count < 3:
        raise UsageError(f"the demo needs at least 3 clips a word, one for each split; got {count}")
    if seed < 0:
        raise UsageError(f"the demo's seed is {seed}, expected 0 or more")
    if unknown := [w for w in words if w not in WORDS]:
        raise UsageError(f'the demo has no word "{unknown[0]}"; known: {", ".join(WORDS)}')
    parameters = {"generator": GENERATOR, "seed": seed, "clips_per_word": count, "words": sorted(set(words))}
    if _is_there(root, parameters):
        return root
    portrait = _portrait()
    plans = [plan for plan in _plans(count, seed) if plan.word in words]
    partial = root.parent / f".{root.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    try:
        _make_all(plans, partial, portrait, progress, workers or _cores())
        unseen = ", ".join(sorted({p.utterance.voice for p in plans} & set(TEST_VOICES))) or "none"
        (partial / "README.txt").write_text(README.format(clips=len(plans), words=len(words), unseen=unseen))
        (partial / MARKER).write_text(json.dumps(parameters, indent=2) + "\n")
        shutil.rmtree(root, ignore_errors=True)
        partial.replace(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _is_there(root: Path, parameters: dict[str, object]) -> bool:
    """Whether this very data set is in `root`. Raises UsageError where something else is, that must not be deleted."""
    if not root.exists():
        return False
    if root.is_dir() and not any(root.iterdir()):
        return False
    try:
        return json.loads((root / MARKER).read_text()) == parameters
    except (OSError, ValueError) as error:
        raise UsageError(f"{root} holds something that the demo did not make; name another folder") from error


def _portrait() -> np.ndarray:
    try:
        from skimage import data
    except ImportError as error:
        raise BmlaError(
            "the demo's portrait comes with scikit-image; install it with: pip install 'bmla[demo]'"
        ) from error
    return np.asarray(data.astronaut())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plans(count: int, seed: int) -> list[ClipPlan]:
    """`count` clips of each word, a quarter for test and a tenth for dev (LRW's val), at least one of each."""
    tests, devs = math.ceil(TEST_SHARE * count), math.ceil(DEV_SHARE * count)
    places = [("test", k) for k in range(tests)] + [("val", k) for k in range(devs)]
    places += [("train", k) for k in range(count - tests - devs)]
    plans = []
    for number, (split, place) in enumerate(places):
        for index, word in enumerate(WORDS):
            rng = np.random.default_rng([seed, index, number])
            voices = TEST_VOICES if split == "test" and number % 3 == 0 else VOICES
            utterance = Utterance(
                text=word.lower(),
                voice=voices[int(rng.integers(len(voices)))],
                words_per_minute=int(rng.integers(130, 170)),
                pitch=int(rng.integers(40, 60)),
                pitch_range=int(rng.integers(30, 70)),
            )
            plans.append(ClipPlan(word, split, place + 1, utterance, (seed, index, number, 1)))
    return plans


def _make_all(
    plans: list[ClipPlan],
    folder: Path,
    portrait: np.ndarray,
    progress: Callable[[int, int], None] | None,
    workers: int,
) -> None:
    crowd = [Utterance(BABBLE_TEXT, voice, 110 + 7 * k, 30 + 4 * k) for k, voice in enumerate(VOICES[:8])]
    spoken = speak([*crowd, *(plan.utterance for plan in plans)])
    babble = mix(spoken[: len(crowd)], BABBLE_S)
    jobs = zip(plans, spoken[len(crowd) :], strict=True)
    start = (folder, parcel((portrait, babble)))
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_open_studio, initargs=start)
    try:
        futures = [pool.submit(_make_clip, plan, speech) for plan, speech in jobs]
        for done, future in enumerate(futures, 1):
            future.result()
            if progress is not None:
                progress(done, len(plans))
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption does not wait for the clips that are left


class _Studio:
    """What all clips of one process share."""

    def __init__(self, folder: Path, portrait: np.ndarray, babble: np.ndarray):
        self.folder, self.babble, self.face = folder, babble, TalkingFace(portrait)

    def make(self, plan: ClipPlan, speech: Speech) -> None:
        """Films, records and writes one clip with its text."""
        rng = np.random.default_rng(plan.seed)
        moments_s = (np.arange(FRAMES) + 0.5) / FPS
        lead_s = WORD_CENTRE_S - word_length_s(speech) / 2
        shapes = mouth_shapes(speech.phones, moments_s - lead_s + rng.normal(0, JITTER_S))
        idle = cv2.GaussianBlur(rng.standard_normal((FRAMES, len(SHAPE))), (1, 9), 0, sigmaY=2.0)
        shapes = shapes * rng.uniform(*EFFORT, len(SHAPE)) + IDLE * idle / idle.std()
        sound, snr_db = record(speech, self.babble, rng)
        path = self.folder / plan.word / plan.split / f"{plan.word}_{plan.place:05}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, film(self.face, np.clip(shapes, 0, 1), rng), sound, speech.rate_hz)
        path.with_suffix(".txt").write_text(
            f"Disk reference: GENERATED\nVoice: {plan.utterance.voice}\nSignal to noise: {snr_db:.1f} dB\n"
            f"Duration: {word_length_s(speech):.2f} seconds\n"
        )


def write_clip(path: Path, pictures: Iterable[np.ndarray], sound: np.ndarray, rate_hz: int) -> None:
    """An mp4 of VIDEO_CODEC and AAC. pictures: (256, 256, 3) uint8 RGB at 25 per second; sound: (n,) float32."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(VIDEO_CODEC, rate=FPS, options={"preset": "ultrafast", "crf": "26"})
        video.width = video.height = WIDTH_PX
        video.pix_fmt = "yuv420p"
        video.bit_rate = 800_000  # libx264 goes by its crf
        video.codec_context.thread_count = 1
        audio = out.add_stream("aac", rate=rate_hz, layout="mono", bit_rate=64_000, options={"aac_coder": "fast"})
        for number, picture in enumerate(pictures):
            planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        block = audio.codec_context.frame_size
        for start in range(0, len(sound), block):
            part = av.AudioFrame.from_ndarray(sound[None, start : start + block], format="fltp", layout="mono")
            part.sample_rate, part.pts, part.time_base = rate_hz, start, Fraction(1, rate_hz)
            out.mux(audio.encode(part))
        out.mux(audio.encode())


_studio: _Studio | None = None  # of a pool's process


def _open_studio(folder: Path, shared: tuple[np.ndarray, np.ndarray]) -> None:
    global _studio
    cv2.setNumThreads(1)
    _studio = _Studio(folder, *shared)


def _make_clip(plan: ClipPlan, speech: Speech) -> None:
    assert _studio is not None
    _studio.make(plan, speech)
