"""Folders of images that an experiment names: fetched, prepared and read as any dataset; what is refused."""

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fetch as fetch_stage
from creditflow.core.errors import UserError
from creditflow.data.image_folders import look_at, source_id, state_of
from creditflow.data.prepared import load_prepared, read_facts
from creditflow.data.settings import InputSettings, SplitSettings
from formats import write
from preparing import Stages

RNG = np.random.default_rng(0)


def picture(level: int, size: tuple[int, int] = (9, 6), mode: str = "RGB") -> bytes:
    """A PNG of (width, height) whose pixels are near a level."""
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(level, level + 9, shape, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def images(parts: tuple[str, ...] = ("train/", "test/"), n: int = 3, **options: object) -> dict[str, bytes]:
    """Images of two classes; a level tells which image it is."""
    return {
        f"{part}{label}/{index}.png": picture(100 * place + 10 * index, **options)
        for part in parts
        for place, label in enumerate(("cat", "dog"))
        for index in range(n)
    }


def prepared(stages: Stages, files: Mapping[str, bytes], *options: str, split: str | None = None) -> Path:
    folder, name = stages.folder / "images", source_id({"source": "image_folder", "path": "images"})
    write(folder, files)
    arguments = ["--dataset", name, "--folder", folder, "--output", stages.folder / "raw"]
    stages.run(fetch_stage.main, *arguments, *(["--split", split] if split else []))
    path = stages.prepare(name, *options)
    assert read_facts(path)["identity"] == {"dataset": name}
    return path


def test_images_of_one_size_are_kept_as_they_are(stages: Stages) -> None:
    path = prepared(stages, images())
    for split in ("train", "test"):
        subset = load_prepared(path, split)
        assert subset.class_names == ("cat", "dog") and subset.labels.tolist() == [0] * 3 + [1] * 3
        assert subset.image_shape == (3, 6, 9)
        names = [f"{split}/{label}/{index}.png" for label in ("cat", "dog") for index in range(3)]
        pixels = [np.asarray(Image.open(stages.folder / "images" / name)).transpose(2, 0, 1) for name in names]
        assert np.array_equal(subset.images.numpy(), np.stack(pixels))


def test_grey_images_have_one_channel(stages: Stages) -> None:
    subset = load_prepared(prepared(stages, images(mode="L")), "test")
    assert subset.image_shape == (1, 6, 9)
    assert load_prepared(stages.folder / "prepared.safetensors", "test", inputs=InputSettings(channels=3, size=4))


def test_images_of_several_sizes_need_a_size(stages: Stages) -> None:
    path = prepared(stages, images() | {"test/dog/0.png": picture(50, (20, 30))})
    with pytest.raises(UserError, match=r"its images are files of many sizes; give the experiment an `input.size`"):
        load_prepared(path, "test")
    subset = load_prepared(path, "test", inputs=InputSettings(size=8))
    assert subset.batch(torch.arange(6))[0].shape == (6, 3, 8, 8)


def test_classes_are_split_by_name_and_seed_alone(tmp_path: Path) -> None:
    write(tmp_path, images(parts=("",), n=10))
    settings = SplitSettings(test=0.3)
    one = look_at(tmp_path, settings)
    assert {part: {label: len(names) for label, names in each.items()} for part, each in one.names.items()} == {
        "test": {"cat": 3, "dog": 3},
        "train": {"cat": 7, "dog": 7},
    }
    assert look_at(tmp_path, settings).names == one.names
    assert look_at(tmp_path, SplitSettings(test=0.3, seed=1)).names != one.names
    extreme = look_at(tmp_path, SplitSettings(test=0.999)).names
    assert [len(extreme["train"][label]) for label in ("cat", "dog")] == [1, 1]
    (tmp_path / "cat/new.png").write_bytes(picture(0))
    later = look_at(tmp_path, settings)
    assert later.names["test"]["dog"] == one.names["test"]["dog"] and later.state != one.state


def test_what_nobody_means_is_left_out(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    hidden = (
        ".DS_Store",
        "._0.png",
        "0.png~",
        ".git/config",
        "__MACOSX/0.png",
        "train/.thumbs/0.png",
        "test/cat/.x.png",
    )
    files = images() | dict.fromkeys(hidden, b"x") | {"train/cat/notes.txt": b"x", "train/cat/more/9.PNG": picture(90)}
    (stages.folder / "images/test/dog").mkdir(parents=True)
    (stages.folder / "images/test/dog/gone.png").symlink_to("nowhere")
    path = prepared(stages, files)
    assert len(load_prepared(path, "train").labels) == 7 and len(load_prepared(path, "test").labels) == 6
    said = capsys.readouterr().out
    assert "2 classes, 7 train images, 6 test images; 1 files have no ending of an image (train/cat/notes.txt)" in said


def test_broken_images_follow_the_projects_rule(stages: Stages) -> None:
    files = images() | {"train/dog/1.png": picture(3)[:-40]}
    with pytest.raises(UserError, match=r"1 of 6 train images cannot be read, more than a share of 0\.001"):
        prepared(stages, files)
    path = prepared(stages, files, "--max-unreadable", "0.2", "--threads", "2")
    assert len(load_prepared(path, "train").labels) == 5
    assert read_facts(path)["unreadable"] == {"train": ["train/dog/1.png"], "test": []}


def test_a_change_is_noticed(stages: Stages) -> None:
    prepared(stages, images())
    folder = stages.folder / "images"
    states = [state_of(str(folder))]
    os.utime(folder / "test/cat/0.png", ns=(1, 1))
    states.append(state_of(str(folder)))
    with pytest.raises(UserError, match="images has changed since fetch looked at it; run the same command again"):
        stages.prepare("image_folder")
    (folder / "test/cat/.hidden").write_bytes(b"x")
    states.append(state_of(str(folder)))
    (folder / "test/cat/0.png").rename(folder / "test/cat/7.png")
    states.append(state_of(str(folder)))
    assert states[1] == states[2] and len(set(states)) == 3
    assert state_of(str(folder / "nowhere")) == ""


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        ({}, None, "has no folder train and no folder test; give it train and test"),
        (images(parts=("train/",)), None, "has no folder test; give it train and test"),
        (images(parts=("",)), None, r"or say which share of the images is for tests, such as split: {test: 0.2}"),
        (images(), '{"test": 0.2}', "has train and test already; leave `split` out"),
        (images(), '{"tst": 0.2}', "--split: unknown key 'tst'; did you mean 'test'"),
        (
            {"0.png": picture(0)},
            '{"test": 0.2}',
            "has no folders of classes; put the images of each class into a folder",
        ),
        (images() | {"train/cow/0.png": picture(0)}, None, "train has the class 'cow' and test has not"),
        ({"train/cat/0.png": picture(0), "test/cat/0.png": picture(0)}, None, "has one class, 'cat'"),
        (images() | {"train/cow/x.txt": b"", "test/cow/0.png": picture(0)}, None, "'cow' has no image for train"),
        (images(parts=("",), n=1), '{"test": 0.2}', "the class 'cat' has 1 images, too few to split"),
    ],
)
def test_other_folders_are_refused_in_one_line(
    files: Mapping[str, bytes], split: str | None, message: str, stages: Stages
) -> None:
    (stages.folder / "images").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        prepared(stages, files, split=split)
    assert "\n" not in str(caught.value)
    assert not list(stages.folder.glob("raw*")) and not list(stages.folder.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"folder": 3}', "is not what fetch notes of a folder of images"),
        ('{"folder": "here", "split": {"test": 3}}', "origin.json: split: test must be below 1, not 3"),
        ('{"folder": "a\\u0000b", "split": null}', "cannot be read as a folder of images"),
    ],
)
def test_a_note_of_fetch_that_is_something_else(content: str, message: str, stages: Stages) -> None:
    raw = stages.folder / "raw"
    raw.mkdir()
    (raw / "origin.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        stages.prepare("image_folder")
    assert "\n" not in str(caught.value)


def test_only_this_dataset_lies_in_a_folder_that_is_named(stages: Stages) -> None:
    with pytest.raises(UserError, match="--dataset digits has nothing to do with --folder"):
        stages.run(fetch_stage.main, "--dataset", "digits", "--folder", stages.here, "--output", stages.folder / "raw")
    with pytest.raises(UserError, match="--dataset image_folder needs --folder"):
        stages.run(fetch_stage.main, "--dataset", "image_folder", "--output", stages.folder / "raw")
