"""Where weights are looked for and what is said where they are missing."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bmla.extract import weights
from bmla.extract.weights import (
    face_recognition_model,
    find_facenet,
    find_hf_folder,
    find_weight_file,
    hf_weight_file,
    inventory,
    sha256_of,
)
from bmla.store.errors import WeightsNotFound

FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries' own caches hold nothing here, whatever the machine has."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def hf_folder(folder: Path, files: tuple[str, ...] = FILES) -> Path:
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text(name)
    return folder


def test_file_is_found_in_a_folder_and_one_level_below(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    (second / "deep").mkdir(parents=True)
    (second / "deep" / "w.pth").touch()
    assert find_weight_file("w.pth", [first, second], "source", "how") == second / "deep" / "w.pth"
    (second / "w.pth").touch()
    assert find_weight_file("w.pth", [first, second], "source", "how") == second / "w.pth"


def test_missing_file_says_what_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound) as caught:
        find_weight_file("w.pth", [tmp_path / "a", tmp_path / "b"], "example.org/w", "curl it")
    text = (
        f"w.pth is not on this machine (source: example.org/w); looked in {tmp_path}/a, {tmp_path}/b; get it: curl it"
    )
    assert str(caught.value) == text
    with pytest.raises(WeightsNotFound, match="looked in no folder: none was given to --weights"):
        find_weight_file("w.pth", [], "example.org/w", "curl it")


@pytest.mark.parametrize(
    "place",
    ["hubert-base-ls960", "facebook/hubert-base-ls960", f"models--facebook--hubert-base-ls960/snapshots/{COMMIT}"],
)
def test_hf_folder_is_found_in_every_layout(tmp_path: Path, place: str) -> None:
    folder = hf_folder(tmp_path / "w" / place)
    if "models--" in place:
        refs = folder.parents[1] / "refs"
        refs.mkdir()
        (refs / "main").write_text(COMMIT)
    assert find_hf_folder("facebook/hubert-base-ls960", [tmp_path / "other", tmp_path / "w"]) == folder


def test_hf_folder_may_be_given_itself(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "hubert-base-ls960")
    assert find_hf_folder("facebook/hubert-base-ls960", [folder]) == folder
    assert find_hf_folder(str(folder), []) == folder


def test_hf_folder_is_found_in_the_default_hub_cache(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "no-hub" / "models--a--b" / "snapshots" / COMMIT)
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs" / "main").write_text(COMMIT)
    assert find_hf_folder("a/b", []) == folder


def test_folder_of_another_name_is_not_taken_for_the_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound):
        find_hf_folder("facebook/hubert-base-ls960", [hf_folder(tmp_path / "wavlm-base")])


def test_incomplete_hf_folder_says_what_it_lacks(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "b", ("config.json",))
    with pytest.raises(WeightsNotFound) as caught:
        find_hf_folder("a/b", [tmp_path])
    assert f"{folder} lacks preprocessor_config.json and model.safetensors or pytorch_model.bin" in str(caught.value)


def test_complete_folder_is_taken_before_an_incomplete_one(tmp_path: Path) -> None:
    hf_folder(tmp_path / "1" / "b", ("config.json",))
    complete = hf_folder(tmp_path / "2" / "b")
    assert find_hf_folder("a/b", [tmp_path / "1", tmp_path / "2"]) == complete


def test_missing_folder_by_path_does_not_offer_to_download_a_path(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match="hf download OWNER/NAME --local-dir WEIGHTS/NAME"):
        find_hf_folder(str(tmp_path / "nowhere"), [])


def test_safetensors_come_before_the_pickled_format(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "m", (*FILES, "pytorch_model.bin"))
    assert hf_weight_file(folder).name == "model.safetensors"


def test_facenet_is_found_in_torch_hubs_checkpoints(tmp_path: Path) -> None:
    name = "20180402-114759-vggface2.pt"
    with pytest.raises(WeightsNotFound, match=rf"releases/download/v2\.2\.9/{name}"):
        find_facenet("vggface2", [tmp_path])
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / name).touch()
    assert find_facenet("vggface2", [tmp_path]) == checkpoints / name


def test_dlib_files_are_found_without_importing_their_package() -> None:
    script = (
        "import sys; from bmla.extract.weights import face_recognition_model as f;"
        "print(f('shape_predictor_68_face_landmarks.dat')); sys.exit('face_recognition_models' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(WeightsNotFound, match="pip install face-recognition-models"):
        face_recognition_model("shape_predictor_68_face_landmarks.dat")


def test_digest_is_that_of_the_bytes_and_follows_a_change(tmp_path: Path) -> None:
    file = tmp_path / "w"
    file.write_bytes(b"one")
    assert sha256_of(file) == hashlib.sha256(b"one").hexdigest()
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert sha256_of(file) == hashlib.sha256(b"two").hexdigest()


def test_digest_of_an_unchanged_file_is_computed_once(tmp_path: Path) -> None:
    file = tmp_path / "w"
    file.write_bytes(b"once")
    sha256_of(file)
    before = weights._sha256.cache_info().hits
    sha256_of(file)
    assert weights._sha256.cache_info().hits == before + 1


def test_inventory_names_every_model_and_what_is_missing(tmp_path: Path) -> None:
    rows = {row.what: row for row in inventory([tmp_path])}
    found = {what for what, row in rows.items() if row.path}
    assert found == {"RetinaFace mobilenet0.25, embedded", "Dlib 68 landmarks", "Dlib face descriptor"}
    assert set(rows) - found == {
        "RetinaFace mobilenet0.25_Final.pth",
        "RetinaFace Resnet50_Final.pth",
        "facebook/hubert-base-ls960 for audio.hubert",
        "facebook/wav2vec2-base for audio.wav2vec2",
        "microsoft/wavlm-base for audio.wavlm",
        "facebook/data2vec-audio-base for audio.data2vec",
        "facebook/dinov2-small for face.image, mouth.image",
        "FaceNet vggface2",
        "FaceNet casia-webface",
        "avhubert-base, converted",
        "avhubert-large, converted",
        "avbert, converted",
        "mavil, converted",
        "VGG-16 for faces",
    }
    assert all(row.path is None or row.path.is_file() for row in rows.values())
    assert all(row.how and row.looked_in for row in rows.values())
    assert str(tmp_path) in rows["FaceNet vggface2"].looked_in


def test_inventory_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "retinaface").mkdir()
    (tmp_path / "retinaface" / "mobilenet0.25_Final.pth").touch()
    folder = hf_folder(tmp_path / "hubert-base-ls960")
    rows = {row.what: row.path for row in inventory([tmp_path])}
    assert rows["RetinaFace mobilenet0.25_Final.pth"] == tmp_path / "retinaface" / "mobilenet0.25_Final.pth"
    assert rows["facebook/hubert-base-ls960 for audio.hubert"] == folder
