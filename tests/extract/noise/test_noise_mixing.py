"""Additive noise: the ratio, silence, and the stretch of a recording."""

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmla.extract.encoders.base import Sound
from bmla.extract.noise import Context, apply, parse
from bmla.extract.noise.mixing import White, mix
from bmla.extract.noise.recording import Recording
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import MediaError, NoSound

CLIPS = [Clip(id=f"c{i}", start_s=0, end_s=1, speaker=f"s{i}", audio=f"{i}.wav") for i in range(4)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def speech(n: int = 16_000, seed: int = 0) -> np.ndarray:
    """Loud in the middle, an offset, and pauses."""
    loudness = np.exp(-(((np.arange(n) - n / 2) / (n / 8)) ** 2))
    return (0.3 * loudness * rng(seed).standard_normal(n) + 0.01).astype(np.float32)


def measured_db(clean: np.ndarray, noisy: np.ndarray) -> float:
    added = noisy.astype(np.float64) - clean
    return 10 * np.log10(sum(float(x) ** 2 for x in clean) / sum(float(x) ** 2 for x in added))


def write_wav(path: Path, samples: np.ndarray, rate_hz: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.round(samples * 32_767).astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("snr", [20, 10, 0, -5, -30])
@pytest.mark.parametrize("kind", ["white", "babble", "file"])
def test_the_measured_ratio_is_the_one_asked_for(kind: str, snr: int, tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "n.wav", 0.2 * rng(5).uniform(-1, 1, 40_000))
    context = Context(
        file=recording, clips=ClipTable.from_clips(CLIPS), other_sound=lambda row: speech(7000 + 3000 * row, row)
    )
    clean = speech(8000, seed=99)
    noisy = apply(parse(f"audio.hubert@{kind}={snr}")[1], CLIPS[0], Sound(clean), context).samples
    assert measured_db(clean, noisy) == pytest.approx(snr, abs=0.01)


@given(st.floats(-30, 60), st.floats(1e-3, 1), st.floats(1e-6, 1e3))
def test_the_ratio_holds_for_any_levels(snr_db: float, loud: float, noise_level: float) -> None:
    clean = (loud * speech(500)).astype(np.float32)
    noisy = mix(clean, noise_level * rng(1).standard_normal(500), snr_db)
    assert measured_db(clean, noisy) == pytest.approx(snr_db, abs=0.01)


def test_less_distance_is_the_same_noise_louder() -> None:
    clean = speech()
    soft, loud = (White(snr).add(Sound(clean), CLIPS[0], rng()).samples.astype(float) - clean for snr in (10, -10))
    np.testing.assert_allclose(10 * soft, loud, atol=1e-5)


def test_white_noise_is_as_strong_in_every_tenth_of_the_band() -> None:
    clean = speech(64_000)
    added = White(0).add(Sound(clean), CLIPS[0], rng()).samples.astype(float) - clean
    power = np.array([band.mean() for band in np.array_split(np.abs(np.fft.rfft(added)) ** 2, 10)])
    assert (np.abs(power / power.mean() - 1) < 0.1).all()


@pytest.mark.parametrize("kind", ["white", "babble", "file"])
@pytest.mark.parametrize("n", [0, 800])
def test_a_silent_clip_stays_as_it_is(kind: str, n: int, tmp_path: Path) -> None:
    context = Context(
        file=write_wav(tmp_path / "n.wav", 0.1 * rng().uniform(-1, 1, 16_000)),
        clips=ClipTable.from_clips(CLIPS),
        other_sound=lambda row: speech(),
    )
    silent = Sound(np.zeros(n, np.float32))
    noisy = apply(parse(f"audio.logspec@{kind}=0")[1], CLIPS[0], silent, context)
    assert noisy.samples.shape == (n,)
    assert not noisy.samples.any()


def test_a_stretch_is_a_piece_of_the_recording_and_any_piece_may_be_drawn(tmp_path: Path) -> None:
    whole = np.round(rng().uniform(-1, 1, 1000) * 32_767) / 32_767
    recording = Recording(write_wav(tmp_path / "n.wav", whole))
    starts = set()
    for seed in range(60):
        piece = recording.stretch(990, rng(seed))
        errors = [np.abs(whole[k : k + 990] - piece).max() for k in range(11)]
        assert min(errors) < 1e-3
        starts.add(int(np.argmin(errors)))
    assert starts == set(range(11))


def test_a_recording_of_another_rate_is_resampled(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(88_200) / 44_100)
    recording = Recording(write_wav(tmp_path / "n.wav", tone, 44_100))
    assert recording.samples == 32_000
    piece = recording.stretch(16_000, rng())
    assert int(np.abs(np.fft.rfft(piece)).argmax()) == 1000


def test_a_recording_shorter_than_the_clip_is_refused(tmp_path: Path) -> None:
    recording = Recording(write_wav(tmp_path / "n.wav", speech(8000)))
    assert len(recording.stretch(8000, rng())) == 8000
    with pytest.raises(MediaError, match=r"n\.wav: 0\.50 s long, the clip needs 0\.75 s; use a longer"):
        recording.stretch(12_000, rng())


def test_a_silent_stretch_is_refused(tmp_path: Path) -> None:
    recording = Recording(write_wav(tmp_path / "n.wav", np.zeros(8000)))
    with pytest.raises(MediaError, match=r"n\.wav: silent for 0\.25 s from "):
        recording.stretch(4000, rng())


def test_a_recording_without_sound_is_refused(tmp_path: Path) -> None:
    import av

    path = tmp_path / "mute.mp4"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=25)
        video.width = video.height = 32
        out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        out.mux(video.encode())
    with pytest.raises(NoSound, match=r"mute\.mp4: no audio stream"):
        Recording(path).stretch(100, rng())
