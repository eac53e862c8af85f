"""`bmla datasets` lists what can be read; `bmla datasets check` counts a copy and says what is left out."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from bmla.cli import main
from bmla.extract.datasets.known import KNOWN, compare
from bmla.extract.datasets.table import ADAPTERS, find
from bmla.store.clips import Clip


def run(*words):
    return CliRunner().invoke(main, ["datasets", *map(str, words)])


def plant(put, wav):
    for actor in range(1001, 1007):
        put(f"AudioWAV/{actor}_IEO_SAD_LO.wav", wav(np.full(1600, 0.1)))
    for k in range(12):
        put(f"AudioWAV/note{k:02}.txt", b"x")
    put("AudioWAV/1007_IEO_SAD_LO.wav", b"")


def test_without_a_subcommand_all_are_listed_with_their_options():
    result = run()
    assert result.exit_code == 0
    for name, entry in ADAPTERS.items():
        assert f"\n{name} " in f"\n{result.output}"
        for text in (entry.task, entry.classes, entry.licence, entry.layout, *entry.options):
            assert text in result.output
    assert max(map(len, result.output.splitlines())) <= 140


def test_the_list_loads_nothing_heavy():
    code = "import sys; from bmla.cli import main; main(['datasets'], standalone_mode=False); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not set(shown.splitlines()[-1].split()) & {"torch", "av", "cv2", "pyarrow", "numpy", "zarr"}


def test_check_shows_counts_beside_the_known_ones_and_the_first_items(put, wav, tmp_path):
    plant(put, wav)
    result = run("check", "cremad", "--root", tmp_path, "--show", 2)
    assert result.exit_code == 0, result.output
    lines = [" ".join(text.split()) for text in result.output.splitlines()]
    assert lines[0].startswith(f"cremad in {tmp_path}: 6 clips, 0.00 hours; options: label=intended, seed=0")
    assert "clips 6 7442 differs by -7436; stated by public sources" in lines
    assert "classes 6 -" in lines
    assert "class SAD 6 -" in lines
    assert "incomplete: 6 clips" in lines
    assert "left out: 13 items" in lines
    assert "12 x is not named like 1001_DFA_ANG_XX.wav" in lines
    assert "... and 11 more: --json lists all" in lines
    assert sum("note0" in text for text in lines) == 2


def test_json_lists_everything(put, wav, tmp_path):
    plant(put, wav)
    found = json.loads(run("check", "cremad", "--root", tmp_path, "--json", "--option", "seed=2").output)
    assert found["options"] == {"label": "intended", "seed": 2}
    assert found["hours"] == pytest.approx(0.6 / 3600)
    assert len(found["dropped"]) == 13
    assert {"item": "1007_IEO_SAD_LO", "reason": "no picture: missing; no sound: empty file"} in found["dropped"]
    assert [i["clip"] for i in found["incomplete"]] == [f"{actor}_IEO_SAD_LO" for actor in range(1001, 1007)]
    counts = {c["what"]: c for c in found["counts"]}
    assert counts["speakers"] == {
        "what": "speakers", "found": 6, "known": 91, "certainty": "stated by public sources",
    }  # fmt: skip
    assert sum(counts[f"split {s}"]["found"] for s in ("train", "dev", "test")) == 6
    assert counts["class SAD"]["found"] == 6


def test_nothing_usable_exits_with_1_and_still_says_why(put, tmp_path):
    put("AudioWAV/1007_IEO_SAD_LO.wav", b"")
    result = run("check", "cremad", "--root", tmp_path)
    assert result.exit_code == 1
    assert "no sound: empty file" in result.output
    nothing = json.loads(run("check", "cremad", "--root", tmp_path, "--json").output)
    assert len(nothing["dropped"]) == 1


def test_many_classes_are_shown_by_their_extremes(put, tmp_path):
    for word in ["".join((a, b, "CDEF")) for a in "ABCDE" for b in "ABCDE"]:
        put(f"{word}/train/{word}_00001.mp4", b"0" * 2000)
    put("AACDEF/train/AACDEF_00002.mp4", b"0" * 2000)
    result = run("check", "lrw", "--root", tmp_path)
    assert "a class holds 1 (ABCDEF) to 2 (AACDEF) clips" in result.output
    assert "class AACDEF" not in result.output


def test_what_is_wrong_with_the_words_is_one_line(tmp_path):
    for words, text in (
        (("check", "lrv"), "'lrv' is not one of"),
        (("check", "lrw", "--root", tmp_path), "nothing recognised"),
        (("check", "lrw", "--root", tmp_path, "--option", "hat"), "not of the form NAME=VALUE"),
        (("check", "lrw", "--root", tmp_path, "--option", "hat=red"), 'unknown option "hat"'),
    ):
        result = run(*words)
        assert result.exit_code == 2
        assert text in result.output
        assert result.output.splitlines()[-1].startswith("Error: ")


def test_without_a_root_the_usual_place_is_looked_at(put, wav, tmp_path, monkeypatch):
    put("cremad/AudioWAV/1001_IEO_SAD_LO.wav", wav(np.full(1600, 0.1)))
    monkeypatch.setenv("BMLA_DATA", str(tmp_path))
    assert run("check", "cremad").exit_code == 0


def test_known_counts_are_those_of_existing_data_sets_and_options():
    assert set(KNOWN) <= set(ADAPTERS)
    for name, rows in KNOWN.items():
        for known in rows:
            assert set(known.when) <= set(find(name).options)
            assert known.certainty in ("stated by public sources", "computed from stated counts", "from memory")


def test_known_counts_add_up():
    for classes, total in ((4, 5531), (6, 7380), (9, 7529)):
        held = {k.what: k.count for k in KNOWN["iemocap"] if k.when.get("classes") == classes and "split" not in k.when}
        assert held.pop("clips") == total == sum(held.values())
        assert len(held) == classes
    paper = [k.count for k in KNOWN["iemocap"] if "split" in k.when]
    assert sum(paper) == 5531
    lrw1000 = {k.what: k.count for k in KNOWN["lrw1000"]}
    assert lrw1000["clips"] == sum(count for what, count in lrw1000.items() if what.startswith("split"))


def test_a_known_count_holds_only_under_its_options(put, tmp_path):
    from bmla.extract.datasets.base import DataSet

    clips = (Clip("a", 0, 1, label="hap", split="train", speaker="x"), Clip("b", 0, 1, label="hap", split="test"))
    for classes, split, known in ((4, "session", 1636), (6, "session", 595)):
        data = DataSet("iemocap", "emotion", tmp_path, ("hap",), clips, {"classes": classes, "split": split, "seed": 7})
        counts = {c.what: c for c in compare(data)}
        assert (counts["class hap"].found, counts["class hap"].known) == (2, known)
        assert counts["split train"].known is None
        assert counts["speakers"].found == 1
    data = DataSet("iemocap", "emotion", tmp_path, ("hap",), clips, {"classes": 4, "split": "paper"})
    assert {c.what: c.known for c in compare(data)}["split train"] == 3871
