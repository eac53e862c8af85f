"""Sound waits for sound of its length across a shard; results keep their order, and are those of each clip alone."""

import numpy as np
import pytest

from bmla.extract import finishing
from bmla.extract.encoders.base import Features, Sound, encode
from bmla.extract.encoders.device import DeviceBatch
from bmla.extract.encoders.table import build
from bmla.extract.finishing import BATCH_CLIPS, Ready, Results, Waiting
from bmla.extract.times import Times
from bmla.store.clips import Clip
from bmla.store.ledger import Failure

STREAM = "audio.x"


class Ear:
    """Doubles its sound, and remembers the lengths of each batch."""

    takes, feature_shape, dtype, rate_hz, frame_law = "sound", (1,), "float16", 1.0, "T = 1"

    def __init__(self, batch: int = 10**9):
        self.waits = DeviceBatch(batch)
        self.batches: list[list[int]] = []

    def steps(self, duration_s):
        return 1

    def finish(self, prepared):
        self.batches.append([len(x) for x in prepared])
        return [Features(np.float16(2 * x[:1, None]), np.ones(1, bool)) for x in prepared]


def ready(i, length):
    found = Failure(f"c{i}", "sound", "NoSound", "none") if length is None else np.full(length, i, np.float32)
    return Ready(Clip(f"c{i}", 0.0, 1.0), {STREAM: found, "other": object()}, {"sound": {"number": float(i)}})


def through(encoder, lengths, part=BATCH_CLIPS, stream=STREAM):
    results, times = Results([stream], {stream: encoder}), Times()
    clips = [ready(i, n) for i, n in enumerate(lengths)]
    for start in range(0, len(clips), part):
        results.add(clips[start : start + part], times)
    results.close(times)
    assert times.seconds.keys() == {f"encode: {stream}"}
    return results.by_stream[stream]


def test_results_keep_the_order_of_the_clips_with_their_failures_and_facts():
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 6, 90)]
    lengths[7] = lengths[44] = None
    found = through(Ear(), lengths)
    for i, (result, length) in enumerate(zip(found, lengths, strict=True)):
        assert result.quality == {"number": float(i)}
        assert (result.failure is None) == (length is not None)
        if length is not None:
            assert result.values.tolist() == [[2 * i]]


def test_a_batch_has_one_length_and_a_shard_few_batches():
    rng = np.random.default_rng(1)
    lengths = [int(n) for n in rng.integers(1, 9, 256)]  # eight lengths
    ear, before = Ear(), 0
    through(ear, lengths)
    for start in range(0, 256, BATCH_CLIPS):
        before += len(set(lengths[start : start + BATCH_CLIPS]))
    assert all(len(set(batch)) == 1 for batch in ear.batches)
    assert sum(map(len, ear.batches)) == 256
    assert len(ear.batches) <= 256 / BATCH_CLIPS + 8
    assert before > 4 * len(ear.batches)


def test_equal_lengths_do_not_wait():
    ear = Ear()
    results = Results([STREAM], {STREAM: ear})
    for start in (0, BATCH_CLIPS):
        results.add([ready(start + i, 5) for i in range(BATCH_CLIPS)], Times())
        assert all(r is not None for r in results.by_stream[STREAM])
    assert ear.batches == [[5] * BATCH_CLIPS] * 2


def test_a_length_of_which_few_fill_a_batch_waits_for_no_more():
    ear = Ear(batch=30)
    through(ear, [10] * 5, part=1)
    assert ear.batches == [[10] * 3, [10] * 2]


def test_what_is_left_is_run_longest_first():
    ear = Ear()
    through(ear, [3, 9, 5, 9])
    assert ear.batches == [[9, 9], [5], [3]]


def test_memory_is_bounded_however_lengths_differ(monkeypatch):
    monkeypatch.setattr(finishing, "HELD_SAMPLES", 100)
    ear, waiting, held = Ear(), Waiting(), []
    for n in range(1, 60):
        waiting.add(n, (n, ready(n, n)))
        ear.batches += [[len(r.inputs[STREAM]) for _, r in g] for g in waiting.full(10**9)]
        held.append(sum(length * len(group) for length, group in waiting.by_length.items()))
    assert max(held) <= 100
    assert sum(map(len, ear.batches)) + sum(len(g) for g in waiting.rest()) == 59


def test_what_waits_holds_nothing_of_other_streams():
    results = Results([STREAM], {STREAM: Ear()})
    results.add([ready(0, 4)], Times())
    ((_, waiter),) = results.waiting[STREAM].by_length[4]
    assert waiter.inputs.keys() == {STREAM}


def test_a_batch_that_fails_is_tried_clip_by_clip():
    class Odd(Ear):
        def finish(self, prepared):
            if any(x[0] == 2 for x in prepared):
                raise ValueError("odd")
            return super().finish(prepared)

    found = through(Odd(), [4] * 5)
    assert [r.failure is not None for r in found] == [False, False, True, False, False]
    assert found[2].failure.clip == "c2"


@pytest.mark.parametrize("surplus", [-1, 1])
def test_features_of_another_number_than_the_clips_are_failures(surplus):
    class Miscounting(Ear):
        def finish(self, prepared):
            found = super().finish(prepared)
            return found[:-1] if surplus < 0 else [*found, found[-1]]

    found = through(Miscounting(), [4] * 3)
    assert [r.failure.error for r in found] == ["ValueError"] * 3


@pytest.mark.parametrize("stream", ["audio.hubert", "audio.wavlm"])
def test_features_are_those_of_each_clip_alone_to_the_last_bit_but_one(stream):
    encoder = build(stream, model=f"random:{stream.partition('.')[2]}-tiny")
    rng = np.random.default_rng(2)
    sounds = [rng.normal(0, 0.1, int(n)).astype(np.float32) for n in rng.choice([1600, 1920, 2240], 24)]
    results = Results([stream], {stream: encoder})
    clips = [Ready(Clip(f"c{i}", 0.0, len(s) / 16_000), {stream: s}, {}) for i, s in enumerate(sounds)]
    results.add(clips[:16], Times())
    results.add(clips[16:], Times())
    results.close(Times())
    for sound, result in zip(sounds, results.by_stream[stream], strict=True):
        (alone,) = encode(encoder, [Sound(sound)])
        np.testing.assert_allclose(result.values.astype(float), alone.values.astype(float), rtol=2e-3, atol=1e-4)
