"""Datasets that lie in a folder of the user's: found, missing, incomplete."""

import json
from pathlib import Path

import pytest

import fetch as fetch_stage
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.data.prepared import load_prepared
from creditflow.data.settings import InputSettings
from creditflow.data.sources import UserFolder
from formats import imagenet100, jpeg, nus_wide, write
from helpers import stage
from preparing import Stages


def test_the_folder_of_the_right_name_comes_first(stages: Stages) -> None:
    """Lists have the same names in two datasets."""
    write(stages.here, nus_wide())
    write(stages.folder / "imagenet100", imagenet100())
    arguments = ["--search-path", str(stages.here), "--search-path", str(stages.folder / "imagenet100")]
    stages.run(fetch_stage.main, "--dataset", "imagenet100", *arguments, "--output", stages.folder / "raw")
    assert json.loads((stages.folder / "raw/origin.json").read_text(encoding="utf-8"))["folder"] == str(
        stages.folder / "imagenet100"
    )


FOLDERS = {"coco": "val2014", "nus_wide": "test.txt", "imagenet": "val", "imagenet100": "test.txt"}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_missing_folder_is_described(name: str, stages: Stages) -> None:
    layout = plugins.load("dataset", name).DATASET.sources[0]
    stages.change(name, sources=[layout])
    for inside in ("", "lacks"):
        if inside:
            write(stages.here / name, {f"{entry}/x": b"" for entry in layout.entries if entry != FOLDERS[name]})
        with pytest.raises(UserError) as caught:
            stages.fetch(name)
        message = str(caught.value)
        assert "\n" not in message and inside in message
        for part in (
            *layout.entries,
            layout.origin,
            str(stages.here / name),
            repr(name),
            "data.search_paths",
            "config/config.yaml",
        ):
            assert part in message
    assert sorted(stages.folder.iterdir()) == [stages.here]


def test_part_of_a_folder_is_named_rather_than_replaced_by_a_download(stages: Stages) -> None:
    write(stages.here / "coco", {"annotations/instances_train2014.json": b"", "train2014/x": b""})
    with pytest.raises(
        UserError,
        match=r"coco lacks annotations/instances_val2014.json, val2014\).*or put annotations_trainval2014.zip, train",
    ):
        stages.fetch("coco")


def test_the_scripts_themselves_on_folders(tmp_path: Path) -> None:
    missing = stage("fetch", "--dataset", "nus_wide", "--search-path", tmp_path, "--output", tmp_path / "out/raw")
    assert (missing.returncode, missing.stderr.count("\n"), list((tmp_path / "out").iterdir())) == (2, 1, [])
    write(tmp_path / "nus_wide", nus_wide() | {"images/2_a_m.jpg": jpeg(2)[:-200]})
    done = stage("fetch", "--dataset", "nus_wide", "--search-path", tmp_path, "--output", tmp_path / "out/raw")
    assert done.returncode == 0, done.stderr
    arguments = [
        "--dataset",
        "nus_wide",
        "--raw",
        tmp_path / "out/raw",
        "--output",
        tmp_path / "out/prepared.safetensors",
    ]
    failed = stage("prepare", *arguments)
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
    assert "1 of 4 train images cannot be read, more than a share of 0.001 (images/2_a_m.jpg)" in failed.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["raw"]
    done = stage("prepare", *arguments, "--max-unreadable", "0.25", "--threads", "2")
    assert done.returncode == 0, done.stderr
    assert "nus_wide: 3 train images\n  left out images/2_a_m.jpg: " in done.stdout
    assert len(load_prepared(tmp_path / "out/prepared.safetensors", "train", inputs=InputSettings(size=8)).labels) == 3


def test_a_folder_that_exists_is_not_said_to_be_missing(stages: Stages) -> None:
    """For datasets in folders, for archives and for files that may be compressed."""
    nowhere = stages.folder / "nowhere"
    for name, wanted in (
        ("nus_wide", "train.txt, test.txt"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("coco", "val2014"),
    ):
        sources = [source for source in plugins.load("dataset", name).DATASET.sources if isinstance(source, UserFolder)]
        stages.change(name, sources=sources)
        arguments = ["--search-path", stages.here, "--search-path", nowhere, "--output", stages.folder / "raw"]
        with pytest.raises(UserError) as caught:
            stages.run(fetch_stage.main, "--dataset", name, *arguments)
        message = str(caught.value)
        assert f"folder {stages.here}: exists, but has none of " in message and wanted in message
        assert f"folder {nowhere}: not there" in message and f"{stages.here}: not there" not in message


@pytest.mark.parametrize("path", ["~/data", "$DATA/data", "${DATA}/data"])
def test_search_paths_as_people_write_them(path: str, stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "DATA"):
        monkeypatch.setenv(name, str(stages.folder))
    write(stages.folder / "data/nus_wide", nus_wide())
    stages.run(fetch_stage.main, "--dataset", "nus_wide", "--search-path", path, "--output", stages.folder / "raw")
    origin = json.loads((stages.folder / "raw/origin.json").read_text(encoding="utf-8"))
    assert origin["folder"] == str(stages.folder / "data/nus_wide")


@pytest.mark.parametrize("content", ["[]", '{"folder": 3}', '{"folder": "a\\u0000b"}', '{"folder": "\\ud800"}', "null"])
def test_a_note_of_fetch_that_is_something_else(content: str, tmp_path: Path) -> None:
    (tmp_path / "origin.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        plugins.load("dataset", "nus_wide").DATASET.read(tmp_path)
    assert "\n" not in str(caught.value) and "fetch" in str(caught.value)


#: What editors, file managers, copies and links to nothing leave among images.
NOT_IMAGES = (
    ".hidden.JPEG",
    "._n01.JPEG",
    ".#n01.JPEG",
    "#n01.JPEG#",
    "~n01.JPEG",
    "n01.JPEG~",
    "Thumbs.db",
    ".DS_Store",
)


def test_what_is_not_the_dataset_s_is_left_out_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(("n01_1.JPEG", "n01_2.jpg", *NOT_IMAGES), b"x"))
    (tmp_path / "n01_3.JPEG").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".#n01_4.JPEG").symlink_to("me@host:1")
    (tmp_path / "n01_5.JPEG").symlink_to(tmp_path / "n01_1.JPEG")
    (tmp_path / "n01_6.JPEG").mkdir()
    assert plugins.load("dataset", "imagenet")._images(tmp_path) == ["n01_1.JPEG", "n01_2.jpg", "n01_5.JPEG"]
