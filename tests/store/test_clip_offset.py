"""The clip table's later column, where a sound file of its own begins: kept where it is used, unseen where it is not."""

from contextlib import closing
from dataclasses import replace

import h5py
import pyarrow as pa
import pyarrow.parquet as pq

from bmla.store import create_store, open_store
from bmla.store.clips import LATER, SCHEMA, Clip, ClipTable
from bmla.store.exchange.h5 import H5File, write_clips

A = Clip("a", 0.0, 1.0, label="yes", split="train", speaker="s1", video="a.mp4", audio="a.mp4")
B = Clip("b", 0.5, 1.0, label="no", split="test", crop_x=3, text="ü <b>")
OFFSET = Clip("c", 2.0, 3.0, video="c", audio="c.wav", fps=25.0, audio_offset_s=1.8)


def columns_written(*clips):
    return pq.read_schema(pa.BufferReader(ClipTable.from_clips(clips).to_parquet())).names


def test_it_is_written_and_digested_only_where_it_is_used():
    assert LATER == ("audio_offset_s",)
    assert columns_written(A, B) == [name for name in SCHEMA.names if name != "audio_offset_s"]
    assert columns_written(A, OFFSET) == SCHEMA.names
    # As it was before there was the column:
    assert ClipTable.from_clips([A, B]).digest() == "c10235ace1293a9c07a0356a23dd6a35b9837912551a9877e4e61c695c3b4144"
    digests = {ClipTable.from_clips([A, replace(OFFSET, audio_offset_s=s)]).digest() for s in (None, 0.0, 1.8)}
    assert len(digests) == 3


def test_a_table_without_it_reads_as_having_no_value_in_it():
    again = ClipTable.from_parquet(ClipTable.from_clips([A, B]).to_parquet())
    assert again.rows([0, 1]) == [A, B]
    assert again.table.schema.equals(SCHEMA)
    mixed = ClipTable.from_parquet(ClipTable.from_clips([A, OFFSET]).to_parquet())
    assert mixed.rows([0, 1]) == [A, OFFSET]
    assert mixed.digest() == ClipTable.from_clips([A, OFFSET]).digest()
    assert mixed.select([0]).digest() == ClipTable.from_clips([A]).digest()


def test_sound_with_its_own_origin_is_cut_in_its_own_time():
    assert A.sound_cut == (0.0, 1.0)
    assert OFFSET.sound_cut == (0.2, 1.2)
    assert Clip("d", 6.2901, 8.2357, audio_offset_s=6.2901).sound_cut == (0.0, 1.9456)


def test_hdf5_has_it_only_where_it_is_used(tmp_path):
    for name, clips in (("old.h5", [A, B]), ("new.h5", [A, OFFSET])):
        with h5py.File(tmp_path / name, "w") as file:
            write_clips(file, ClipTable.from_clips(clips))
            assert ("audio_offset_s" in file["clips"]) == (name == "new.h5")
        with closing(H5File(tmp_path / name)) as opened:
            assert opened.clips().rows([0, 1]) == clips


def test_a_store_keeps_it(tmp_path):
    create_store(
        tmp_path / "s.zarr", dataset="x", task="t", classes=("a",), clips=ClipTable.from_clips([A, OFFSET]), options={}
    )
    assert open_store(tmp_path / "s.zarr").clips[1] == OFFSET
