"""Names of noise variants, what a stream specification says of them, and the laws that every kind of noise keeps."""

import json
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from bmla.extract.encoders.base import Sight, Sound
from bmla.extract.noise import TABLE, Context, Variant, apply, parse
from bmla.extract.noise.base import rng_of
from bmla.extract.noise.table import Part
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import MediaError, UnknownName, UsageError
from bmla.store.spec import StreamSpec

STRONG = {
    "mask": 0.4,
    "white": 5.0,
    "babble": 5.0,
    "file": 5.0,
    "blur": 8.0,
    "occlude": 0.3,
    "dark": 0.9,
    "drop": 0.4,
}
CLIPS = [Clip(id=f"c{i}", start_s=0, end_s=1, speaker=f"s{i // 2}", split="test", audio=f"{i}.wav") for i in range(8)]


def voice(row: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(row).standard_normal(4000 + 100 * row)).astype(np.float32)


@pytest.fixture(scope="module")
def noise_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret_place") / "kitchen.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((3000 * np.random.default_rng(9).standard_normal(32_000)).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def context(noise_file: Path) -> Context:
    return Context(seed=3, file=noise_file, clips=ClipTable.from_clips(CLIPS), other_sound=voice)


def sight() -> Sight:
    T, rng = 10, np.random.default_rng(0)
    box = np.array([10, 5, 40, 45], np.float32)
    landmarks = np.tile(np.array([25, 35], np.float32), (T, 68, 1)) + rng.uniform(-3, 3, (T, 68, 2)).astype(np.float32)
    frames = rng.integers(0, 256, (T, 50, 60, 3), np.uint8)
    return Sight(frames, np.tile(box, (T, 1)), landmarks, np.arange(T) != 3, np.full(T, 0.9, np.float32))


def taken(kind: str) -> Sound | Sight:
    return Sound(voice(99)) if TABLE[kind].modality == "audio" else sight()


def content(taken: Sound | Sight) -> bytes:
    return b"".join(np.ascontiguousarray(array).tobytes() for array in vars(taken).values())


@pytest.mark.parametrize(
    ("name", "base", "parts"),
    [
        ("audio.hubert@mask=0.4", "audio.hubert", [("mask", 0.4)]),
        ("audio.logspec@white=-5", "audio.logspec", [("white", -5.0)]),
        ("audio.hubert@white=10,mask=0.25", "audio.hubert", [("white", 10.0), ("mask", 0.25)]),
        ("mouth.roi@blur=4", "mouth.roi", [("blur", 4.0)]),
        ("face.vggface2@dark=0.5,drop=1", "face.vggface2", [("dark", 0.5), ("drop", 1.0)]),
    ],
)
def test_a_name_is_read_and_written_back(name: str, base: str, parts: list) -> None:
    found, variant = parse(name)
    assert found == base
    assert variant == Variant(tuple(Part(kind, value) for kind, value in parts))
    assert f"{found}@{variant}" == name


def test_a_name_without_noise_has_none() -> None:
    assert parse("mouth.dct") == ("mouth.dct", None)


@pytest.mark.parametrize("kind", TABLE)
def test_both_ends_of_the_range_are_in_it_and_what_lies_beyond_is_not(kind: str) -> None:
    entry = TABLE[kind]
    base = "audio.logspec" if entry.modality == "audio" else "mouth.roi"
    for value in (entry.low, entry.high):
        assert parse(f"{base}@{kind}={value:g}")[1] == Variant((Part(kind, float(value)),))
    for value in (entry.low - 0.5, entry.high + 0.5):
        with pytest.raises(
            UsageError, match=rf"{kind}={value:g} is out of range; expected {entry.low} to {entry.high}"
        ):
            parse(f"{base}@{kind}={value:g}")


@pytest.mark.parametrize("text", ["0.40", ".4", "0.", "1e-05", "0.00001", "00", "-0", "nan", "inf", "1_0", "", "0.4=1"])
def test_a_value_that_could_be_written_another_way_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"mask|stream name"):
        parse(f"audio.hubert@mask={text}")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("audio.hubert@rain=1", UnknownName, r'unknown noise in audio\.hubert@rain=1: "rain"; known: mask, white'),
        ("audio.wavelets@mask=1", UnknownName, 'unknown encoder "audio.wavelets"'),
        ("audio.hubert@blur=4", UsageError, "blur is visual noise, the stream is audio; .* mask, white, babble, file"),
        ("mouth.roi@mask=0.4", UsageError, "mask is audio noise, the stream is visual; .* blur, occlude, dark, drop"),
        ("audio.hubert@mask=0.4,mask=0.2", UsageError, "mask stands more than once"),
        ("audio.hubert@mask=0.4,", UnknownName, 'unknown noise .* ""'),
        ("audio.hubert@Mask=0.4", UsageError, "is no stream name"),
    ],
)
def test_other_names_are_refused(name: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        parse(name)


@pytest.mark.parametrize("kind", TABLE)
def test_noise_is_that_of_the_clip_the_kind_and_the_seed_alone(kind: str, context: Context, noise_file: Path) -> None:
    variant, clean = Variant((Part(kind, STRONG[kind]),)), taken(kind)
    before = content(clean)
    noisy = apply(variant, CLIPS[0], clean, context)
    other = apply(variant, CLIPS[1], clean, context)
    fresh = Context(seed=3, file=noise_file, clips=ClipTable.from_clips(CLIPS), other_sound=voice)
    assert content(apply(variant, CLIPS[0], clean, fresh)) == content(noisy)  # another worker, another order
    assert content(clean) == before != content(noisy)
    reseeded = Context(seed=4, file=noise_file, clips=ClipTable.from_clips(CLIPS), other_sound=voice)
    if kind != "blur":  # which draws nothing
        assert content(other) != content(noisy)
        assert content(apply(variant, CLIPS[0], clean, reseeded)) != content(noisy)
    for name, array in ((k, v) for k, v in vars(noisy).items() if v is not None):
        assert (array.shape, array.dtype) == (getattr(clean, name).shape, getattr(clean, name).dtype), name


def test_the_generator_is_that_of_the_written_out_seed() -> None:
    import hashlib

    digest = hashlib.sha256(b'[7,"mask","s1/abc"]').hexdigest()
    expected = np.random.default_rng(int(digest, 16)).random(4)
    np.testing.assert_array_equal(rng_of(7, "mask", "s1/abc").random(4), expected)
    assert (rng_of(7, "white", "s1/abc").random(4) != expected).all()


def test_parts_are_applied_in_their_order(context: Context) -> None:
    clean = Sound(voice(99))
    both = apply(parse("audio.hubert@mask=0.4,white=5")[1], CLIPS[0], clean, context)
    masked = apply(parse("audio.hubert@mask=0.4")[1], CLIPS[0], clean, context)
    expected = apply(parse("audio.hubert@white=5")[1], CLIPS[0], masked, context)
    np.testing.assert_array_equal(both.samples, expected.samples)
    turned = apply(parse("audio.hubert@white=5,mask=0.4")[1], CLIPS[0], clean, context)
    assert np.abs(turned.samples - both.samples).max() > 1e-3


@pytest.mark.parametrize("kind", TABLE)
def test_a_description_fits_a_stream_specification_and_names_no_path(kind: str, context: Context) -> None:
    described = Variant((Part(kind, STRONG[kind]),)).describe(context)
    assert described["seed"] == 3
    assert (described["parts"][0]["kind"], described["parts"][0]["value"]) == (kind, STRONG[kind])
    modality = TABLE[kind].modality
    spec = StreamSpec("x.y", modality, "e", "float16", (2,), 25.0, "T", noise=described)
    assert StreamSpec.from_dict(json.loads(json.dumps(spec.to_dict()))).noise == described
    assert "secret_place" not in json.dumps(described)
    assert "kitchen" not in json.dumps(described)
    if modality == "visual":
        assert described["parts"][0]["faces"] == "found on the clean pictures"


def test_the_description_knows_the_noise_file_by_its_content(context: Context, noise_file: Path) -> None:
    import hashlib

    part = parse("audio.hubert@file=0")[1].describe(context)["parts"][0]
    assert part["file_sha256"] == hashlib.sha256(noise_file.read_bytes()).hexdigest()
    assert part["file_samples"] == 32_000


def test_the_description_knows_the_clips_that_babble_is_made_of(context: Context) -> None:
    part = parse("audio.hubert@babble=0")[1].describe(context)["parts"][0]
    assert part["talkers"] == 8
    assert part["clip_table_sha256"] == ClipTable.from_clips(CLIPS).digest()
    assert "another speaker" in part["talkers_drawn"]


@pytest.mark.parametrize(("kind", "message"), [("file", "no noise file was given"), ("babble", "no clips were given")])
def test_what_a_noise_lacks_is_said_before_any_work(kind: str, message: str) -> None:
    variant = parse(f"audio.hubert@{kind}=0")[1]
    with pytest.raises(UsageError, match=message):
        variant.describe(Context())
    with pytest.raises(UsageError, match=message):
        apply(variant, CLIPS[0], Sound(voice(0)), Context())


def test_a_noise_file_that_is_not_there_is_a_media_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"gone\.wav"):
        parse("audio.hubert@file=0")[1].describe(Context(file=tmp_path / "gone.wav"))


def test_reading_names_loads_no_media_or_picture_library() -> None:
    heavy = "torch cv2 av soxr dlib transformers scipy"
    code = f"import sys, bmla.extract.noise; print([m for m in '{heavy}'.split() if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
