"""Laws of cutting by timestamp, on generated files whose frames carry their number as grey level and whose sound clicks."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from bmla.extract.media import probe, read_audio, read_frames
from bmla.store.errors import MediaError, NoSound, UsageError

GREY_STEP = 6
NUMBERS = 30  # distinct levels


def write_media(
    path,
    fps=25,
    frames=29,
    rate_hz=48_000,
    sound=None,
    video_codec="mpeg4",
    audio_codec=None,
    late_video_s=0.0,
    late_sound_s=0.0,
    size=(96, 80),
    skip=(),
    gop=10,
    grain=None,
    still=False,
    sound_gap=(np.inf, 0.0),
    **container,
):
    """A file whose frame k is grey 24 + GREY_STEP * (k % NUMBERS), with the sound given as (samples,) float or (samples, channels).

    still: every frame the same grain and grey. sound_gap: from this second on, the sound's timestamps are later by so many seconds.
    """
    fps = Fraction(fps)
    with av.open(str(path), "w", **container) as out:
        if frames:
            # Not every change of grey is a new scene: otherwise each frame would be a keyframe.
            video = out.add_stream(video_codec, rate=fps, options={"sc_threshold": "1000000000"})
            video.width, video.height = size
            video.pix_fmt = "yuv420p"
            video.bit_rate = 20_000_000
            video.codec_context.gop_size = gop
        if sound is not None:
            wide = np.atleast_2d(np.asarray(sound, np.float32).T)
            codec = audio_codec or {
                ".wav": "pcm_s16le",
                ".mpg": "mp2",
                ".avi": "pcm_s16le",
                ".mkv": "pcm_s16le",
                ".flv": "pcm_s16le",
            }.get(path.suffix, "aac")
            audio = out.add_stream(codec, rate=rate_hz, layout="stereo" if len(wide) == 2 else "mono")
        packets = []
        grain = (20.0 if path.suffix == ".mpg" else 0.0) if grain is None else grain
        rng = np.random.default_rng(0)
        for k in range(frames):
            if k in skip:
                continue
            # Grain makes frames larger than an MPEG packet: FFmpeg's muxer gives smaller ones wrong timestamps.
            rng, number = (np.random.default_rng(0), 0) if still else (rng, k % NUMBERS)
            image = (24 + GREY_STEP * number + grain * rng.uniform(-1, 1, (size[1], size[0], 1))).repeat(3, 2)
            frame = av.VideoFrame.from_ndarray(image.round().astype(np.uint8), format="rgb24")
            frame.time_base = Fraction(1, 90_000)
            frame.pts = round((k / fps + Fraction(late_video_s).limit_denominator(1000)) * 90_000)
            packets += video.encode(frame)
        if frames:
            packets += video.encode()
        if sound is not None:
            block = audio.codec_context.frame_size or 1024
            resampler = av.AudioResampler(format=audio.format.name, layout=audio.layout.name, rate=rate_hz)
            for start in range(0, wide.shape[1], block):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(wide[:, start : start + block]), format="fltp", layout=audio.layout.name
                )
                frame.sample_rate = rate_hz
                frame.time_base = Fraction(1, rate_hz)
                gap_s = sound_gap[1] if start >= sound_gap[0] * rate_hz else 0
                frame.pts = start + round((late_sound_s + gap_s) * rate_hz)
                for converted in resampler.resample(frame):
                    packets += audio.encode(converted)
            packets += audio.encode()
        packets.sort(key=lambda p: float(p.dts * p.time_base))
        for packet in packets:
            out.mux(packet)
    return path


def numbers(frames):
    """Which frame each picture shows (mod NUMBERS), from its grey level."""
    levels = frames.images.astype(float).mean((1, 2, 3))
    found = (levels - 24) / GREY_STEP
    assert np.abs(found - found.round()).max() < 0.45
    return found.round().astype(int).tolist()


def click(at_s, duration_s, rate_hz):
    """A band-limited click: one period of a raised cosine of 0.5 ms with its peak at `at_s`."""
    t = np.arange(round(duration_s * rate_hz)) / rate_hz - at_s
    return np.where(np.abs(t) < 5e-4, 0.4 * (1 + np.cos(np.pi * t / 5e-4)), 0).astype(np.float32)


def noise(duration_s, rate_hz, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(round(duration_s * rate_hz))).astype(np.float32)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".flv"])
def test_25_fps_gives_each_frame_exactly_once(tmp_path, suffix):
    path = write_media(tmp_path / f"a{suffix}", video_codec="flv1" if suffix == ".flv" else "mpeg4")
    frames = read_frames(path, 0, 1.16)
    assert frames.images.shape == (29, 80, 96, 3)
    assert frames.images.dtype == np.uint8
    assert numbers(frames) == list(range(29))
    assert frames.present.all()


def test_h264_with_reordered_frames_gives_each_frame_exactly_once(tmp_path):
    path = write_media(tmp_path / "a.mp4", video_codec="libx264", sound=noise(1.2, 48_000))
    assert numbers(read_frames(path, 0, 1.16)) == list(range(29))


def test_mpeg_program_stream_gives_each_frame_exactly_once(tmp_path):
    path = write_media(tmp_path / "a.mpg", video_codec="mpeg1video", sound=noise(1.2, 44_100), rate_hz=44_100)
    assert numbers(read_frames(path, 0, 1.16)) == list(range(29))


@pytest.mark.parametrize(("fps", "count"), [(30, 40), (Fraction(30_000, 1001), 40), (50, 80), (12, 16)])
@pytest.mark.parametrize("start_s", [0.004, 0.1, 0.333])
def test_other_rates_map_by_timestamp(tmp_path, fps, count, start_s):
    path = write_media(tmp_path / "a.mkv", fps=fps, frames=count)
    frames = read_frames(path, start_s, start_s + 0.8)
    rate = Fraction(fps)
    moments = [Fraction(start_s).limit_denominator(1000) + Fraction(2 * k + 1, 50) for k in range(20)]
    shown = [
        max(j for j in range(count) if round(j / rate, 3) <= t) % NUMBERS for t in moments
    ]  # Matroska counts milliseconds
    assert numbers(frames) == shown
    assert frames.present.all()


def test_a_cut_off_the_frame_grid_takes_consecutive_frames(tmp_path):
    path = write_media(tmp_path / "a.mp4", frames=40)
    for start_s, first in ((0.185, 5), (0.2, 5), (0.215, 5), (0.225, 6)):
        assert numbers(read_frames(path, start_s, start_s + 0.4)) == list(range(first, first + 10))


@pytest.mark.parametrize("suffix", [".mp4", ".mpg", ".avi"])
def test_a_late_cut_of_a_long_file_seeks_to_the_same_frames_and_sound(tmp_path, suffix):
    sound = noise(16, 44_100)
    path = write_media(
        tmp_path / f"a{suffix}",
        frames=400,
        sound=sound,
        rate_hz=44_100,
        video_codec="mpeg1video" if suffix == ".mpg" else "mpeg4",
    )
    assert numbers(read_frames(path, 13.0, 14.0)) == [k % NUMBERS for k in range(325, 350)]
    assert numbers(read_frames(path, 15.6, 16.0)) == [k % NUMBERS for k in range(390, 400)]
    late, whole = read_audio(path, 13.01, 14.01), read_audio(path, 0, 15.5)
    part = whole[round(13.01 * 16_000) :][:16_000]
    assert np.abs(late - part).max() < 2e-3 * np.abs(part).max()


@pytest.mark.parametrize(("suffix", "codec", "still"), [(".mpg", "mpeg1video", False), (".ts", "mpeg4", True)])
def test_a_late_cut_whose_keyframe_is_far_back_shows_whole_frames(tmp_path, suffix, codec, still):
    path = write_media(tmp_path / f"a{suffix}", frames=425, video_codec=codec, gop=100, grain=20, still=still)
    whole = read_frames(path, 0, 16).images
    for start_s in (13.0, 15.0):
        first = round(start_s * 25)
        assert np.array_equal(read_frames(path, start_s, start_s + 0.4).images, whole[first : first + 10])


@pytest.mark.parametrize(
    ("suffix", "rate_hz"),
    [
        (".wav", 44_100),
        (".wav", 16_000),
        (".wav", 48_000),
        (".wav", 22_050),
        (".mp4", 44_100),
        (".mp4", 48_000),
        (".mpg", 44_100),
        (".avi", 44_100),
        (".mkv", 44_100),
        (".flv", 44_100),
    ],
)
def test_a_click_lands_on_its_sample(tmp_path, suffix, rate_hz):
    path = write_media(
        tmp_path / f"a{suffix}",
        frames=0 if suffix == ".wav" else 29,
        sound=click(0.5, 1.2, rate_hz),
        rate_hz=rate_hz,
        video_codec={".mpg": "mpeg1video", ".flv": "flv1"}.get(suffix, "mpeg4"),
    )
    sound = read_audio(path, 0.2, 1.16)
    delay_s = 481 / 44_100 if suffix == ".mpg" else 0  # the encoder's own, which this container cannot take back
    assert sound.shape == (15_360,)
    assert sound.dtype == np.float32
    assert abs(np.argmax(sound) / 16_000 - 0.3 - delay_s) < (1e-3 if suffix == ".flv" else 1.3e-4)
    assert 0.6 < sound.max() < 1


def test_a_cut_from_the_middle_equals_the_cut_of_the_whole(tmp_path):
    path = write_media(tmp_path / "a.wav", frames=0, sound=noise(3, 44_100), rate_hz=44_100)
    whole = read_audio(path, 0, 3)
    for first in (1600, 4801, 20_000, 31_999):
        part = read_audio(path, first / 16_000, (first + 8000) / 16_000)
        assert np.abs(part - whole[first : first + 8000]).max() < 1e-5


def test_resampling_keeps_a_tone_and_its_phase(tmp_path):
    t = np.arange(round(1.5 * 44_100)) / 44_100
    path = write_media(tmp_path / "a.wav", frames=0, sound=0.5 * np.sin(2 * np.pi * 1000 * t), rate_hz=44_100)
    sound = read_audio(path, 0.25, 1.25)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * (0.25 + np.arange(16_000) / 16_000))
    assert np.abs(sound - expected).max() < 1e-3


def test_sound_of_the_target_rate_is_taken_bit_by_bit(tmp_path):
    values = np.round(noise(1, 16_000) * 32_768) / 32_768
    path = write_media(tmp_path / "a.wav", frames=0, sound=values, rate_hz=16_000)
    assert np.array_equal(read_audio(path, 0.25, 0.75), values.astype(np.float32)[4000:12_000])


def test_channels_are_averaged(tmp_path):
    left, right = noise(1, 16_000, 1), noise(1, 16_000, 2)
    path = write_media(tmp_path / "a.wav", frames=0, sound=np.stack([left, right], 1), rate_hz=16_000)
    assert np.abs(read_audio(path, 0, 1) - (left + right) / 2).max() < 1e-4


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize(("late_video_s", "late_sound_s"), [(0.0, 0.4), (0.4, 0.0), (0.6, 0.2)])
def test_offsets_between_sound_and_picture_are_respected(tmp_path, suffix, late_video_s, late_sound_s):
    path = write_media(
        tmp_path / f"a{suffix}",
        frames=50,
        sound=click(0.81, 2, 48_000),
        late_video_s=late_video_s,
        late_sound_s=late_sound_s,
    )
    click_s = 0.5 + np.argmax(read_audio(path, 0.5, 1.7)) / 16_000
    shown = numbers(read_frames(path, click_s - 0.02, click_s + 0.02))
    assert shown == [int((0.81 + late_sound_s - late_video_s) * 25) % NUMBERS]
    if suffix == ".mkv":  # uncompressed sound: no encoder delay moves the file's own start
        assert click_s == pytest.approx(0.81 + late_sound_s - min(late_video_s, late_sound_s), abs=1e-3)


def test_sound_that_starts_late_is_an_error_beyond_the_tolerance(tmp_path):
    path = write_media(tmp_path / "a.mkv", frames=50, sound=noise(1.5, 48_000), late_sound_s=0.4)
    with pytest.raises(MediaError, match=r"a\.mkv: sound starts at 0\.40 s; the cut needs 0\.00 to 1\.00 s"):
        read_audio(path, 0, 1)
    start = write_media(tmp_path / "b.mkv", frames=50, sound=noise(1.5, 48_000), late_sound_s=0.08)
    assert np.abs(read_audio(start, 0, 1)[: int(0.07 * 16_000)]).max() < 1e-3


def test_a_hole_in_the_sound_is_an_error_and_what_follows_it_stays_in_time(tmp_path):
    path = write_media(
        tmp_path / "a.mkv", frames=75, sound=noise(1.5, 48_000) + click(1.2, 1.5, 48_000), sound_gap=(0.768, 0.5)
    )
    with pytest.raises(MediaError, match=r"a\.mkv: no sound from 0\.77 to 1\.27 s; the cut needs 0\.00 to 1\.90 s"):
        read_audio(path, 0, 1.9)
    assert abs(np.argmax(read_audio(path, 1.4, 1.9)) / 16_000 + 1.4 - 1.7) < 1e-3


def test_what_the_target_rate_cannot_hold_is_filtered_out(tmp_path):
    t = np.arange(44_100) / 44_100
    path = write_media(tmp_path / "a.wav", frames=0, sound=0.5 * np.sin(2 * np.pi * 11_000 * t), rate_hz=44_100)
    assert np.abs(read_audio(path, 0.3, 0.7)).max() < 1e-3


def test_a_video_that_ends_early_is_an_error_that_says_where(tmp_path):
    path = write_media(tmp_path / "a.mp4", frames=15)
    with pytest.raises(MediaError, match=r"a\.mp4: video ends at 0\.60 s; the cut needs 0\.00 to 1\.16 s"):
        read_frames(path, 0, 1.16)
    with pytest.raises(MediaError, match=r"video ends at 0\.60 s; the cut needs 20\.00 to 21\.00 s"):
        read_frames(path, 20, 21)


def test_a_video_that_ends_within_the_tolerance_repeats_its_last_frame_and_says_so(tmp_path):
    frames = read_frames(write_media(tmp_path / "a.mp4", frames=27), 0, 1.16)
    assert numbers(frames) == [*range(27), 26, 26]
    assert frames.present.tolist() == [True] * 27 + [False] * 2


def test_a_hole_in_the_video_is_an_error(tmp_path):
    path = write_media(tmp_path / "a.mkv", skip=range(10, 18))
    with pytest.raises(MediaError, match=r"a\.mkv: video has no frame from 0\.40 to 0\.72 s"):
        read_frames(path, 0, 1.16)
    assert numbers(read_frames(path, 0.72, 1.16)) == list(range(18, 29))


def test_a_short_hole_repeats_the_frame_before_it(tmp_path):
    frames = read_frames(write_media(tmp_path / "a.mkv", skip=(10, 11)), 0, 1.16)
    assert numbers(frames) == [*range(10), 9, 9, *range(12, 29)]
    assert (~frames.present).nonzero()[0].tolist() == [10, 11]


def test_sound_that_ends_early_is_padded_within_the_tolerance_only(tmp_path):
    path = write_media(tmp_path / "a.wav", frames=0, sound=noise(1.1, 16_000), rate_hz=16_000)
    sound = read_audio(path, 0, 1.16)
    assert len(sound) == 18_560
    assert not sound[17_600:].any()
    with pytest.raises(MediaError, match=r"a\.wav: sound ends at 1\.10 s; the cut needs 0\.00 to 1\.30 s"):
        read_audio(path, 0, 1.3)
    with pytest.raises(MediaError, match=r"sound ends at 1\.10 s; the cut needs 30\.00 to 31\.00 s"):
        read_audio(path, 30, 31)


def test_a_video_without_sound_is_no_sound_and_a_sound_file_has_no_video(tmp_path):
    with pytest.raises(NoSound, match=r"a\.mp4: no audio stream"):
        read_audio(write_media(tmp_path / "a.mp4"), 0, 1)
    with pytest.raises(MediaError, match=r"a\.wav: no video stream"):
        read_frames(write_media(tmp_path / "a.wav", frames=0, sound=noise(1, 16_000), rate_hz=16_000), 0, 1)


def test_a_crop_is_applied_and_must_lie_inside(tmp_path):
    path = write_media(tmp_path / "a.mp4")
    assert read_frames(path, 0, 0.2, crop=(8, 4, 20, 30)).images.shape == (5, 30, 20, 3)
    with pytest.raises(MediaError, match="crop x 80, y 0, 20 x 20 does not lie inside the picture of 96 x 80"):
        read_frames(path, 0, 0.2, crop=(80, 0, 20, 20))


def test_a_turned_recording_is_shown_upright(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt, video.bit_rate = 64, 48, "yuv420p", 4_000_000
        video.set_display_rotation(90)  # counter-clockwise: the left edge goes down
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, :16] = 255
        for k in range(5):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = k
            out.mux(video.encode(frame))
        out.mux(video.encode())
    images = read_frames(path, 0, 0.2).images
    assert images.shape == (5, 64, 48, 3)
    assert images[0, -8:].mean() > 200
    assert images[0, :40].mean() < 30
    assert (probe(path).width, probe(path).height) == (48, 64)


def test_a_cover_picture_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        audio = out.add_stream("aac", rate=16_000, layout="mono")
        cover = out.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        out.mux(cover.encode())
        for start in range(0, 16_384, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            out.mux(audio.encode(frame))
        out.mux(audio.encode())
    assert not probe(path).has_video
    with pytest.raises(MediaError, match="no video stream"):
        read_frames(path, 0, 0.04)


def write_pictures(folder: Path, shown, width=64) -> Path:
    folder.mkdir(exist_ok=True)
    for n in shown:
        with av.open(str(folder / f"{n}.png"), "w", format="image2", options={"update": "1"}) as out:
            stream = out.add_stream("png", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, 48, "rgb24"
            image = np.full((48, width, 3), 24 + GREY_STEP * (n % NUMBERS), np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode())
    return folder


def test_a_folder_of_numbered_images_is_a_video_in_the_order_of_its_numbers(tmp_path):
    folder = write_pictures(tmp_path / "clip", range(3, 18))  # 10.png sorts before 3.png as text
    (folder / "._3.png").write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"x")
    assert numbers(read_frames(folder, 0.2, 0.6, fps=25)) == list(range(8, 18))
    assert numbers(read_frames(folder, 0, 1.2, fps=12.5))[:6] == [3, 3, 4, 4, 5, 5]
    assert probe(folder, fps=25).duration_s == pytest.approx(0.6)
    with pytest.raises(MediaError, match=r"clip: video ends at 0\.60 s"):
        read_frames(folder, 0, 1, fps=25)
    with pytest.raises(MediaError, match="clip: a folder of images needs its frame rate"):
        read_frames(folder, 0, 0.4)
    write_pictures(folder, range(18, 21), width=80)
    mixed = read_frames(folder, 0.4, 0.72, fps=25)
    assert mixed.images.shape == (8, 48, 64, 3)
    assert numbers(mixed) == list(range(13, 21))
    (folder / "frame_0003.jpg").write_bytes(b"x")
    with pytest.raises(MediaError, match="clip: two images carry the number 3"):
        read_frames(folder, 0, 0.4, fps=25)
    (tmp_path / "none").mkdir()
    with pytest.raises(MediaError, match="none: no numbered images"):
        read_frames(tmp_path / "none", 0, 0.4, fps=25)


def test_probe_tells_lengths_and_sizes(tmp_path):
    found = probe(write_media(tmp_path / "a.mp4", sound=noise(1.2, 44_100), rate_hz=44_100))
    assert found.video_s == pytest.approx(1.16, abs=1e-3)
    assert found.audio_s == pytest.approx(1.2, abs=0.03)
    assert (found.fps, found.width, found.height, found.rate_hz) == (25, 96, 80, 44_100)
    assert found.has_video
    assert found.has_audio
    assert found.duration_s == found.video_s
    silent = probe(write_media(tmp_path / "b.avi"))
    assert not silent.has_audio
    assert silent.duration_s == pytest.approx(1.16, abs=1e-3)
    wav = probe(write_media(tmp_path / "c.wav", frames=0, sound=noise(1.2, 16_000), rate_hz=16_000))
    assert not wav.has_video
    assert wav.duration_s == pytest.approx(1.2)
    short = probe(write_media(tmp_path / "d.mkv", frames=50, sound=noise(1, 16_000), rate_hz=16_000))
    assert short.duration_s == pytest.approx(1.0, abs=0.03)


def test_an_impossible_cut_is_a_usage_error(tmp_path):
    for cut in ((1, 1), (2, 1), (-1, 1), (float("nan"), 1), (0, float("inf"))):
        with pytest.raises(UsageError, match="expected 0 <= start < end"):
            read_frames(tmp_path / "a.mp4", *cut)
        with pytest.raises(UsageError, match="expected 0 <= start < end"):
            read_audio(tmp_path / "a.mp4", *cut)


BROKEN = {
    "missing.mp4": (None, "the file cannot be read"),
    "empty.mp4": (b"", "the file is empty"),
    "stub.mp4": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a git-lfs stub.*git lfs pull"),
    "text.mp4": (b"hello, I am no video\n" * 50, "no media can be read"),
    "noise.mp4": (np.random.default_rng(0).bytes(5000), "no media can be read"),
    "list.mp4": (b"#EXTM3U\n#EXTINF:10,\nhttp://example.org/a.ts\n", "no media can be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_clear_line_that_names_it(tmp_path, name):
    content, message = BROKEN[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for read in (probe, lambda p: read_frames(p, 0, 1), lambda p: read_audio(p, 0, 1)):
        with pytest.raises(MediaError, match=message) as caught:
            read(tmp_path / name)
        text = str(caught.value)
        assert text.startswith(f"{name}: ")
        assert str(tmp_path) not in text
        assert "\n" not in text


def truncated(tmp_path, front: bool) -> Path:
    options = {"movflags": "faststart"} if front else {}
    whole = write_media(tmp_path / "whole.mp4", frames=75, sound=noise(3, 48_000), options=options)
    data = whole.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    return path


def test_a_file_cut_before_its_index_is_a_media_error(tmp_path):
    with pytest.raises(MediaError, match=r"cut\.mp4: no media can be read from it .*: truncated, or no media file"):
        read_frames(truncated(tmp_path, front=False), 0, 1)


def test_a_file_cut_in_its_data_is_a_media_error_only_where_the_data_is_missing(tmp_path):
    path = truncated(tmp_path, front=True)
    with pytest.raises(MediaError, match=r"cut\.mp4: video ends at [12]\.\d\d s; the cut needs 0\.00 to 3\.00 s"):
        read_frames(path, 0, 3)
    with pytest.raises(MediaError, match=r"cut\.mp4: sound ends at [12]\.\d\d s; the cut needs 0\.00 to 3\.00 s"):
        read_audio(path, 0, 3)
    assert numbers(read_frames(path, 0, 1)) == list(range(25))
    assert len(read_audio(path, 0, 1)) == 16_000
    assert probe(path).duration_s == pytest.approx(
        3, abs=0.03
    )  # what the header promises: the clip fails, it does not shrink


def test_a_frame_cut_off_by_the_end_of_the_file_is_not_shown(tmp_path):
    whole = write_media(tmp_path / "whole.mp4", grain=20, options={"movflags": "faststart"}).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[:-1500])  # a frame has more
    frames = read_frames(path, 0, 1.16)
    assert numbers(frames) == [*range(28), 27]
    assert frames.present.tolist() == [True] * 28 + [False]


def test_nothing_is_printed_about_broken_media(tmp_path):
    path = truncated(tmp_path, front=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
    path.write_bytes(data)
    code = (
        "import sys\nfrom pathlib import Path\nfrom bmla.extract.media import read_audio, read_frames\n"
        "for read in (read_frames, read_audio):\n    try:\n        read(Path(sys.argv[1]), 0, 3)\n"
        "    except Exception as error:\n        print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["MediaError", "MediaError"]
    assert done.stderr == ""


def test_reading_twice_gives_the_same_bytes(tmp_path):
    path = write_media(tmp_path / "a.mp4", sound=noise(1.2, 44_100), rate_hz=44_100)
    first, second = read_frames(path, 0, 1.16), read_frames(path, 0, 1.16)
    assert first.images.tobytes() == second.images.tobytes()
    assert read_audio(path, 0, 1.16).tobytes() == read_audio(path, 0, 1.16).tobytes()


def grid_folder() -> Path:
    root = Path(os.environ.get("BMLA_TEST_DATA", Path(__file__).parents[3] / "shared")) / "data" / "grid"
    if not root.is_dir():
        pytest.skip("needs the real GRID clips (BMLA_TEST_DATA)")
    return root


def test_real_grid_clips_have_75_frames_and_sound():
    for path in sorted(grid_folder().glob("s1/*.mpg"))[:5]:
        frames = read_frames(path, 0, 3)
        assert frames.images.shape == (75, 288, 360, 3)
        assert frames.present.all()
        sound = read_audio(path, 0, 3)
        assert len(sound) == 48_000
        assert 0.01 < np.abs(sound).max() < 1.1
        part = read_frames(path, 1.0, 1.4).images
        assert np.array_equal(part, frames.images[25:35])
