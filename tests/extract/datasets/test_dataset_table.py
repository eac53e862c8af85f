"""The table of data sets is light, and every row's adapter keeps the contract."""

import subprocess
import sys

import pytest

from bmla.extract.datasets.table import ADAPTERS, find
from bmla.store.errors import UnknownName, UsageError


def test_the_table_loads_nothing_heavy():
    code = "import sys, bmla.extract.datasets.table; print([m for m in ('torch', 'av', 'cv2', 'pyarrow', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_data_set_lists_those_known():
    with pytest.raises(
        UnknownName,
        match='unknown data set "lwr"; known: lrw, lrw1000, grid, iemocap, cremad, ravdess, meld, manifest, demo',
    ):
        find("lwr")


@pytest.mark.parametrize("name", ADAPTERS)
def test_each_row_says_what_it_is_and_gives_an_adapter(name):
    entry = find(name)
    assert entry.task in ("lip reading", "emotion", "classification")
    assert all(text and "\n" not in text for text in (entry.classes, entry.licence, entry.layout))
    assert callable(entry.adapter())


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_missing_or_empty_root_says_what_was_expected_and_found(name, tmp_path):
    read = find(name).adapter()
    with pytest.raises(UsageError, match=rf"{name}: the root .*no does not exist; expected a"):
        read(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=rf"{name}: nothing recognised in .*empty: expected .*; found nothing"):
        read(tmp_path / "empty")
    (tmp_path / "empty" / "notes").mkdir()
    (tmp_path / "empty" / "a.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"found a\.zip, notes/"):
        read(tmp_path / "empty")


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_unknown_option_lists_those_known(name, tmp_path):
    known = ", ".join(find(name).options)  # so the table names exactly the options that there are
    with pytest.raises(UsageError, match=f'{name}: unknown option "colour_of_hat"; known: {known}$'):
        find(name).adapter()(tmp_path, colour_of_hat="red")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "hat"}, "grid: target is 'hat', expected one of word, command, colour"),
        ({"margin_s": "wide"}, r"grid: margin_s is 'wide', expected a number \(float\)"),
        ({"margin_s": "-1"}, "grid: margin_s is -1.0, expected 0 to 1 second"),
        ({"seed": 1.5}, "grid: seed is 1.5, expected a value of type int"),
        ({"seed": True}, "grid: seed is True, expected a value of type int"),
    ],
)
def test_an_option_of_another_kind_says_what_was_expected(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        find("grid").adapter()(tmp_path, **options)
    for name, option, value, expected in (
        ("iemocap", "classes", "5", "expected one of 4, 6, 9"),
        ("iemocap", "test_session", "6", "expected 1 to 5"),
        ("iemocap", "split", "random", "expected one of session, paper"),
        ("cremad", "label", "felt", "expected one of intended, voice, face, both"),
        ("ravdess", "channel", "radio", "expected one of speech, song, both"),
        ("meld", "cap", "maybe", "expected true or false"),
        ("lrw1000", "audio_lead_s", "0", "expected 0.04 to 5 seconds"),
    ):
        with pytest.raises(UsageError, match=f"{name}: {option} is .*{expected}"):
            find(name).adapter()(tmp_path, **{option: value})
    with pytest.raises(UsageError, match="lrw: word_boundary is 'perhaps', expected true or false"):
        find("lrw").adapter()(tmp_path, word_boundary="perhaps")
