"""The clip table keeps what it was given, refuses what would mislead a reader, and has a digest of its values."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmla.store.clips import LATER, SCHEMA, Clip, ClipTable
from bmla.store.errors import StoreError, UnknownName

A = Clip("a", 0.0, 1.0, label="yes", split="train", speaker="s1", video="a.mp4", audio="a.mp4")
B = Clip("b", 0.5, 1.0, label="no", split="test", crop_x=3, text="ü <b>")


def test_written_table_reads_back_the_same():
    table = ClipTable.from_clips([A, B])
    again = ClipTable.from_parquet(table.to_parquet())
    assert again.rows([0, 1]) == [A, B]
    assert again[1] == B
    assert again.digest() == table.digest()


def test_columns_are_those_of_the_documented_schema():
    written = pq.read_schema(pa.BufferReader(ClipTable.from_clips([A]).to_parquet())).names
    assert [*written, *LATER] == SCHEMA.names


def test_repeated_id_is_refused_by_name():
    with pytest.raises(StoreError, match='id "a" stands more than once'):
        ClipTable.from_clips([A, B, A])


@pytest.mark.parametrize("cut", [(1.0, 1.0), (2.0, 1.0), (-0.1, 1.0), (float("nan"), 1.0)])
def test_empty_or_negative_cut_is_refused(cut):
    with pytest.raises(StoreError, match=r'clip "x": the cut'):
        ClipTable.from_clips([Clip("x", *cut)])


def test_unknown_split_is_refused():
    with pytest.raises(StoreError, match="unknown split"):
        ClipTable.from_clips([Clip("x", 0, 1, split="val")])


def test_file_with_other_columns_is_refused():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ["a"]}), sink)
    with pytest.raises(StoreError, match="columns do not fit"):
        ClipTable.from_parquet(sink.getvalue().to_pybytes())


def test_a_file_of_more_clips_than_bytes_is_not_unpacked():
    sink = pa.BufferOutputStream()
    n = 1_000_000
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), ["a"])
    pq.write_table(pa.table({"id": same}), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    assert len(data) < n
    with pytest.raises(StoreError, match=f"1000000 clips can't be in {len(data)} bytes"):
        ClipTable.from_parquet(data)


def test_file_that_is_no_parquet_is_refused():
    with pytest.raises(StoreError, match="cannot be read"):
        ClipTable.from_parquet(b"hello")


def test_labels_are_positions_in_classes_and_minus_one_where_unknown():
    table = ClipTable.from_clips([A, B, Clip("c", 0, 1)])
    assert table.labels(["no", "yes"]).tolist() == [1, 0, -1]


def test_indices_of_a_split_are_row_numbers():
    table = ClipTable.from_clips([A, B, Clip("c", 0, 1, split="train")])
    assert table.indices("train").tolist() == [0, 2]
    assert table.indices(None).tolist() == [0, 1, 2]
    with pytest.raises(UnknownName, match="train, dev, test"):
        table.indices("val")


def test_counts_show_missing_values_as_a_dash():
    assert ClipTable.from_clips([A, B]).counts("speaker") == {"-": 1, "s1": 1}


texts = st.none() | st.text(st.characters(blacklist_categories=["Cs"]), max_size=4)
times = st.floats(0, 1e6)


@given(st.lists(st.tuples(texts, texts, times, st.none() | st.integers(0, 9)), min_size=1, max_size=5), st.data())
def test_digest_changes_with_any_value_and_with_nothing_else(rows, data):
    clips = [Clip(f"{i}", s, s + 1e3, label=a, text=b, crop_w=w) for i, (a, b, s, w) in enumerate(rows)]
    digest = ClipTable.from_clips(clips).digest()
    assert ClipTable.from_clips(list(clips)).digest() == digest
    i = data.draw(st.integers(0, len(clips) - 1))
    field, value = data.draw(
        st.sampled_from([("label", "other label"), ("text", "other text"), ("crop_w", 77), ("end_s", 2e6)])
    )
    changed = [*clips]
    changed[i] = Clip(**{**{f: getattr(clips[i], f) for f in Clip.__dataclass_fields__}, field: value})
    assert ClipTable.from_clips(changed).digest() != digest


def test_digest_tells_where_one_text_ends_and_the_next_begins():
    one = ClipTable.from_clips([Clip("a", 0, 1, label="xy"), Clip("b", 0, 1, label="z")])
    other = ClipTable.from_clips([Clip("a", 0, 1, label="x"), Clip("b", 0, 1, label="yz")])
    empty = ClipTable.from_clips([Clip("a", 0, 1, label=""), Clip("b", 0, 1)])
    none = ClipTable.from_clips([Clip("a", 0, 1), Clip("b", 0, 1, label="")])
    assert len({t.digest() for t in (one, other, empty, none)}) == 4


def test_a_column_of_numbers_shows_missing_as_nan():
    column = ClipTable.from_clips([A, B]).column("crop_x")
    assert np.isnan(column[0])
    assert column[1] == 3
