"""A store from a stranger who knows the format: seals and digests fit, and it still runs nothing, leads nowhere else and
makes nobody take more memory than it holds. docs/store.md lists what is tried here and in `reading/test_layout.py`."""

import json
import shutil
import tracemalloc

import numpy as np
import pytest
from click.testing import CliRunner

from bmla.cli import main
from bmla.store import create_store, open_store
from bmla.store.clips import Clip, ClipTable
from bmla.store.errors import BmlaError
from bmla.store.info import info
from bmla.store.ledger import key_of
from bmla.store.place import open_place
from bmla.store.sealing import sealed
from bmla.store.shard import ClipFeatures
from bmla.store.spec import StreamSpec
from bmla.store.transfer import plan_transfer, run_transfer
from bmla.store.verify import verify

SPEC = StreamSpec("audio.toy", "audio", "toy", "float16", (3,), 100.0, "T = any")
LARGEST_BYTES = 50 << 20  # the store holds some kilobytes


@pytest.fixture
def store(tmp_path):
    clips = ClipTable.from_clips([Clip(f"c{i:02d}", 0, 1, label="a", split="train") for i in range(20)])
    made = create_store(tmp_path / "s.zarr", dataset="d", task="t", classes=("a",), clips=clips, shard_size=8)
    made.add_stream(SPEC, 6)
    for number in range(made.shards):
        start, stop = made.extent(number)
        values = np.random.default_rng(number).normal(size=(stop - start, 6, 3)).astype(np.float16)
        made.write_shard("audio.toy", number, [ClipFeatures(v, np.ones(6, bool)) for v in values])
    return made


def edit(store, key, change):
    """Changes a JSON file; its seal fits again."""
    path = store.path / key
    document = json.loads(path.read_text())
    holder = document["attributes"]["bmla"] if "attributes" in document else document
    holder.pop("seal")
    changed = sealed(change(holder))
    if "attributes" in document:
        document["attributes"]["bmla"] = changed
    else:
        document = changed
    path.write_text(json.dumps(document))


def root(**values):
    return lambda store: edit(store, "zarr.json", lambda d: {**d, **values})


def head(**values):
    return lambda store: edit(store, "streams/audio.toy/zarr.json", lambda d: {**d, **values})


def spec(**values):
    return lambda store: edit(store, "streams/audio.toy/zarr.json", lambda d: {**d, "spec": {**d["spec"], **values}})


def entry(**values):
    return lambda store: edit(store, key_of("audio.toy", 1), lambda d: {**d, **values})


def array(name, **values):
    """Array metadata of the stranger's choosing, with the digest in the head that fits it."""

    def change(store):
        import hashlib

        path = store.path / f"streams/audio.toy/{name}/zarr.json"
        text = json.dumps({**json.loads(path.read_text()), **values})
        path.write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        edit(store, "streams/audio.toy/zarr.json", lambda d: {**d, "arrays": {**d["arrays"], name: digest}})

    return change


def link(key):
    """The file or folder stands elsewhere, and a link leads there."""

    def change(store):
        inside, outside = store.path / key, store.path.parent / "outside"
        inside.rename(outside)
        inside.symlink_to(outside)

    return change


def text(key, content):
    def change(store):
        (store.path / key).parent.mkdir(parents=True, exist_ok=True)
        (store.path / key).write_text(content)

    return change


PICKLED = [{"name": "bytes"}, {"name": "numcodecs.pickle", "configuration": {}}]
SHARD = "streams/audio.toy/values/c/1/0/0"
ATTACKS = {
    # it asks for code
    "a codec that unpickles": array("values", codecs=PICKLED),
    "a filter of an unknown library": array("valid", codecs=[{"name": "evil.codec"}]),
    "an object data type": array("values", data_type="object"),
    # it claims more than it holds
    "more clips than there are": root(clips=10**12),
    "more clips than a number": root(clips=10**30),
    "a shard size of a number's end": root(shard_size=2**62),
    "no clips": root(clips=0),
    "steps without end": head(steps=10**12),
    "steps beyond a number": head(steps=10**40),
    "a feature of a million by a million": spec(feature_shape=(1 << 20, 1 << 20)),
    "a length beyond the steps": entry(lengths=[10**12] * 8),
    "a length below zero": entry(lengths=[-1] * 8),
    "lengths that are none": entry(lengths=["6"] * 8),
    "more lengths than clips": entry(lengths=[6] * 10**5),
    "a file of more bytes than there are": entry(
        files={name: {"bytes": 10**15, "sha256": "0" * 64} for name in ("values", "length", "valid", "status")}
    ),
    "files of no size": entry(files={"values": {"bytes": "all", "sha256": "0" * 64}}),
    "a shape of its own": array("values", shape=[10**9, 10**9, 10**9]),
    "chunks of its own": array("length", chunk_grid={"name": "regular", "configuration": {"chunk_shape": [10**12]}}),
    "nesting without end": text("streams/audio.toy/zarr.json", "[" * 10**5),
    "nesting without end in the ledger": text(key_of("audio.toy", 1), '{"a":' * 10**5),
    "nesting without end in the root": text("zarr.json", '{"a":' * 10**5),
    "numbers without end": text(key_of("audio.toy", 1), "1" * 10**5),
    "not a number": text(key_of("audio.toy", 1), '{"seal": NaN}'),
    # it leads elsewhere
    "a clip table that is a link": link("clips.parquet"),
    "a root that is a link": link("zarr.json"),
    "streams that are a link": link("streams"),
    "a stream that is a link": link("streams/audio.toy"),
    "an array that is a link": link("streams/audio.toy/values"),
    "a shard that is a link": link(SHARD),
    "a validity that is a link": link("streams/audio.toy/valid/c/1/0"),
    "a ledger that is a link": link("ledger"),
    "an entry that is a link": link(key_of("audio.toy", 1)),
    "another stream's name": spec(name="audio.other"),
    "an entry of another shard": entry(shard=2),
    "an origin that is a link": lambda store: [
        (store.path / "origin.json").symlink_to("/etc/passwd"),
        (store.path / key_of("audio.toy", 1)).unlink(),
    ],
}


def everything(path, target):
    """What a user does with a store that a stranger gave."""
    yield lambda: open_store(path).clips
    yield lambda: info(open_store(path))
    yield lambda: [open_store(path).pending(s) for s in open_store(path).streams()]
    yield lambda: open_store(path).load("audio.toy")
    for tier in ("ram", "mmap", "shard"):
        yield lambda tier=tier: open_store(path).reader("audio.toy", tier=tier).read_many(range(20))
    for name in ("values", "length", "valid", "status"):
        yield lambda name=name: open_store(path).array("audio.toy", name)[:8]
    yield lambda: run_transfer(plan_transfer(open_store(path), open_place(target, read_only=False)))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_strangers_store_does_no_harm(store, tmp_path, attack):
    ATTACKS[attack](store)
    errors = []
    tracemalloc.start()
    try:
        for use in everything(store.path, tmp_path / "target.zarr"):
            try:
                use()
            except BmlaError as error:
                errors.append(str(error))
        verify_errors = refused_by_verify(store)
        assert tracemalloc.get_traced_memory()[1] < LARGEST_BYTES
    finally:
        tracemalloc.stop()
    assert verify_errors
    assert errors
    assert not [e for e in errors if "\n" in e]
    target = tmp_path / "target.zarr"
    assert not [p for p in target.rglob("*") if p.is_symlink()]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "outside") in (["s.zarr"], ["s.zarr", "target.zarr"])


def refused_by_verify(store):
    try:
        found = open_store(store.path)
        return verify(found, deep=True)
    except BmlaError as error:
        return [str(error)]


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_command_says_it_in_one_line(store, attack):
    ATTACKS[attack](store)
    for words in (["verify", "--deep"], ["info"], ["failures"]):
        result = CliRunner().invoke(main, ["store", words[0], str(store.path), *words[1:]])
        assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exception)
        assert result.exit_code in (0, 1, 2)
        if words[0] == "verify":
            assert result.exit_code == 1


def test_names_of_files_in_a_strangers_folder_are_not_followed(store, tmp_path):
    """Folders and files beside what the format knows: shown as foreign, never opened, never moved along."""
    (store.path / "streams" / "..evil").mkdir()
    (store.path / "streams" / "Evil Name").mkdir()
    shutil.copy(store.path / "streams/audio.toy/zarr.json", store.path / "streams/Evil Name/zarr.json")
    with pytest.raises(BmlaError):
        open_store(store.path).head("Evil Name")
    with pytest.raises(BmlaError):
        open_store(store.path).head("../../outside")
    assert verify(open_store(store.path))
