"""A stream specification survives JSON, refuses what it does not know, and names differences."""

import json

import pytest

from bmla.store.errors import StoreError, UsageError
from bmla.store.spec import StreamSpec, check_stream_name, differences

SPEC = StreamSpec("audio.hubert", "audio", "hubert", "float16", (768,), 50.0, "T = n", parameters={"layer": 12})


def test_specification_survives_json():
    again = StreamSpec.from_dict(json.loads(json.dumps(SPEC.to_dict())))
    assert again == SPEC
    assert again.digest() == SPEC.digest()


def test_digest_depends_on_every_field():
    other = StreamSpec.from_dict({**SPEC.to_dict(), "parameters": {"layer": 9}})
    assert other.digest() != SPEC.digest()


def test_unknown_and_missing_keys_are_named():
    with pytest.raises(StoreError, match=r"unknown keys \['colour'\]"):
        StreamSpec.from_dict({**SPEC.to_dict(), "colour": 1})
    with pytest.raises(StoreError, match=r"missing keys \['encoder'\]"):
        StreamSpec.from_dict({k: v for k, v in SPEC.to_dict().items() if k != "encoder"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder", 3),
        ("rate_hz", "fast"),
        ("rate_hz", -1),
        ("feature_shape", [0]),
        ("feature_shape", []),
        ("dtype", "object"),
        ("modality", "text"),
        ("crop", [1]),
    ],
)
def test_values_that_cannot_be_are_refused(key, value):
    with pytest.raises(StoreError):
        StreamSpec.from_dict({**SPEC.to_dict(), key: value})


@pytest.mark.parametrize(
    "name", ["audio", "../x.y", "audio.hubert/..", "a.b@", "A.b", "audio..x", "audio.x@a/b", "", "a." + "b" * 200]
)
def test_names_that_could_leave_the_store_are_refused(name):
    with pytest.raises(UsageError, match="no stream name"):
        check_stream_name(name)


@pytest.mark.parametrize("name", ["audio.hubert", "mouth.dct", "audio.hubert@mask=0.4", "visual.bgru-2"])
def test_the_names_in_use_are_accepted(name):
    assert check_stream_name(name) == name


def test_differences_name_the_path_and_both_values():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}) == ["a.b: 1 here, 3 there"]
    assert differences({"a": 1}, {}) == ["a: 1 here, None there"]
    assert differences({"a": 1}, {"a": 1}) == []
