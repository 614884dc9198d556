"""Images for the command line: files as Pillow reads them, arrays as NumPy stores them, and refusals in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from creditflow.core.errors import UserError
from creditflow.data.prepared import save_prepared
from creditflow.instrument.images import load_images

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def folder_of(folder: Path, images: np.ndarray, classes: str = "cab") -> Path:
    """Image i goes to the class that is i modulo their number."""
    for index, image in enumerate(images):
        place = folder / classes[index % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index}.png")
    return folder


@pytest.mark.parametrize("stored", [COLOUR, GREY])
def test_a_folder_of_classes_is_what_pillow_reads_and_labels_follow_the_names(
    tmp_path: Path, stored: np.ndarray
) -> None:
    (folder_of(tmp_path, stored) / "a/.hidden").write_text("x", encoding="utf-8")
    images, labels = load_images(str(tmp_path))
    order = [1, 4, 2, 5, 0, 3, 6]  # a, b, c
    expected = torch.from_numpy(stored[order]).float() / 255
    expected = expected[:, None] if stored.ndim == 3 else expected.permute(0, 3, 1, 2)
    assert torch.equal(images, expected) and images.dtype == torch.float32
    assert labels.tolist() == [0, 0, 1, 1, 2, 2, 2] and labels.dtype == torch.int64
    wide, _ = load_images(str(tmp_path), bounds=(-1, 1))
    assert torch.allclose(wide, expected * 2 - 1)


def test_images_of_several_sizes_are_scaled_only_if_that_is_said(tmp_path: Path) -> None:
    folder_of(tmp_path, COLOUR)
    Image.fromarray(COLOUR[0].repeat(2, 0)).save(tmp_path / "b/large.png")
    with pytest.raises(UserError, match=r"has 6x5 pixels, and .*large.png has 12x5; scale them to one size by --size"):
        load_images(str(tmp_path))
    assert load_images(str(tmp_path), size=4)[0].shape == (8, 3, 4, 4)


def test_a_number_of_images_is_drawn_by_the_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = RANDOM.random((50, 1, 4, 4))
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(50))
    source = str(tmp_path / "images.npz")
    drawn, labels = load_images(source, count=10, seed=1)
    assert torch.equal(drawn, torch.from_numpy(images[labels.numpy()]).float())
    assert len(set(labels.tolist())) == 10 and labels.tolist() == sorted(labels.tolist())
    assert "10 of the 50 images" in capsys.readouterr().err
    assert torch.equal(load_images(source, count=10, seed=1)[1], labels)
    assert not torch.equal(load_images(source, count=10, seed=2)[1], labels)
    assert torch.equal(load_images(source, count=99)[1], torch.arange(50))


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_in_every_layout(tmp_path: Path, compressed: bool) -> None:
    expected = torch.from_numpy(COLOUR).permute(0, 3, 1, 2).float() / 255
    layouts = {
        "last": (COLOUR, expected),
        "first": (COLOUR.transpose(0, 3, 1, 2), expected),
        "grey": (GREY, expected[:, :1]),
        "half": ((COLOUR / 255).astype(np.float16), expected),
        "many": (RANDOM.random((7, 4, 6, 6)), None),
    }
    for name, (images, wanted) in layouts.items():
        (np.savez_compressed if compressed else np.savez)(
            tmp_path / "x.npz", images=images, labels=np.arange(7)[:, None]
        )
        read, labels = load_images(str(tmp_path / "x.npz"))
        assert wanted is None or torch.allclose(read, wanted, atol=1e-3), name
        assert read.dtype == torch.float32 and labels.tolist() == list(range(7)), name


def test_a_prepared_dataset_by_its_name_and_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.array([0, 1, 1, 0, 1, 0, 1])
    split = (np.ascontiguousarray(COLOUR.transpose(0, 3, 1, 2)), labels)
    path = tmp_path / "results/data/digits/prepared.safetensors"
    path.parent.mkdir(parents=True)
    save_prepared(path, {"train": split, "test": split}, ["even", "odd"])
    monkeypatch.chdir(tmp_path)
    for source in ("dataset:digits", f"dataset:{path}"):
        images, read = load_images(source)
        assert torch.equal(images, torch.from_numpy(split[0]).float() / 255) and read.tolist() == labels.tolist()
    with pytest.raises(UserError, match="unknown dataset 'digit'; did you mean 'digits'"):
        load_images("dataset:digit")
    with pytest.raises(
        UserError, match=r"there is no prepared dataset .*mnist.* here; make it with `snakemake results/"
    ):
        load_images("dataset:mnist")


def _write(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_what_is_not_as_it_should_be_is_one_line(tmp_path: Path) -> None:
    labels, images = np.arange(7), (COLOUR / 255).astype(np.float32)
    (tmp_path / "empty/a").mkdir(parents=True)
    (tmp_path / "none").mkdir()
    (folder_of(tmp_path / "flat", COLOUR, "a") / "a/5.png").rename(tmp_path / "flat.png")
    for part in ("train", "test"):
        folder_of(tmp_path / "split" / part, COLOUR)
    (folder_of(tmp_path / "broken", COLOUR) / "b/2.png").write_bytes((tmp_path / "flat.png").read_bytes()[:60])
    (tmp_path / "text.npz").write_text("no archive", encoding="utf-8")
    cases = {
        str(tmp_path / "absent"): "is neither a folder, nor an .npz file, nor dataset:<name>",
        str(tmp_path / "empty"): "empty/a holds no image; add some, or take away this class",
        str(tmp_path / "none"): "has no folders of classes; put the images of each class into a folder",
        str(tmp_path / "split"): "has train and test; name the folder of classes, such as",
        str(tmp_path / "broken"): "b/2.png cannot be read as an image",
        str(tmp_path / "absent.npz"): "there is no file",
        str(tmp_path / "text.npz"): "cannot be read as an .npz file",
        _write(tmp_path / "a.npz", images=images): "has no array `labels` but images; write it with numpy.savez",
        _write(tmp_path / "b.npz", labels=labels): "has no array `images` but labels",
        _write(
            tmp_path / "c.npz", images=images, labels=labels[:5]
        ): "must be 7 class numbers from 0, one for each image",
        _write(tmp_path / "d.npz", images=images, labels=labels - 1): "must be 7 class numbers from 0",
        _write(tmp_path / "e.npz", images=images, labels=labels * 0.5): "not float64 of shape (7,)",
        _write(
            tmp_path / "f.npz", images=images * 3, labels=labels
        ): "outside of 0 to 1; scale them, or state their range",
        _write(tmp_path / "g.npz", images=images * np.nan, labels=labels): "have values from nan to nan",
        _write(tmp_path / "h.npz", images=COLOUR.astype(np.int32), labels=labels): "`images` are int32; store them as",
        _write(tmp_path / "i.npz", images=images.reshape(7, -1), labels=labels): "must be (N, C, H, W), (N, H, W, C)",
        _write(tmp_path / "j.npz", images=images[:, :3], labels=labels): "must be (N, C, H, W), (N, H, W, C)",
        _write(tmp_path / "k.npz", images=images[:0], labels=labels[:0]): "holds no image",
        _write(tmp_path / "l.npz", images=np.array([None]), labels=labels): "cannot be read as an .npz file (Object",
    }
    for source, message in cases.items():
        with pytest.raises(UserError) as raised:
            load_images(source)
        assert message in str(raised.value), source
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="--size is for image files"):
        load_images(_write(tmp_path / "m.npz", images=images, labels=labels), size=3)
