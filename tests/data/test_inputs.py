"""From stored bytes to what a network sees: against torchvision's transforms, Pillow and direct computation."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from creditflow.compute.torchvision_import import torchvision
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.data.dataset import ImageFiles
from creditflow.data.inputs import augment, decode, to_input, to_unit_interval
from creditflow.data.prepared import Subset
from creditflow.data.settings import Augmentation, InputSettings


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 64), (96, 96, 32), (50, 40, 45)])
def test_squashing_is_torchvisions_resize(height: int, width: int, size: int) -> None:
    images = random_images(3, 3, height, width)
    theirs = torchvision.transforms.functional.resize(images.float() / 255, [size, size], antialias=True)
    torch.testing.assert_close(to_input(images, InputSettings(size=size)), theirs.clamp(0, 1))


@pytest.mark.parametrize(("height", "width"), [(300, 400), (400, 300), (224, 224), (30, 20)])
def test_cropping_is_the_transform_of_torchvisions_weights(height: int, width: int) -> None:
    images = random_images(2, 3, height, width)
    presets = torchvision.transforms
    theirs = presets.Compose([presets.Resize(256, antialias=True), presets.CenterCrop(224)])(images.float() / 255)
    ours = to_input(images, InputSettings(size=224, resize="crop"))
    assert ours.shape == theirs.shape
    # The two round the longer side and the corner of the crop differently by at most a pixel.
    assert (ours - theirs).abs().mean() < 0.02 or torch.allclose(ours, theirs, atol=1e-4)


def test_without_settings_bytes_are_only_divided() -> None:
    images = random_images(2, 1, 5, 7)
    assert torch.equal(to_input(images, InputSettings()), images.float() / 255)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size must be at least 1, not 0"),
        ({"size": 10_001}, "size must be at most 10000, not 10001"),
        ({"size": 32.5}, "size must be an integer, not 32.5"),
        ({"size": True}, "size must be an integer, not True"),
        ({"resize": "stretch"}, "resize must be 'squash' or 'crop', not 'stretch'"),
        ({"channels": 2}, "channels must be 1 or 3, not 2"),
        ({"sise": 32}, "unknown key 'sise'; did you mean 'size'?"),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(InputSettings, values, "--input")
    assert str(caught.value) == f"--input: {message}"


def test_a_grey_channel_is_repeated_and_colours_are_not_thrown_away() -> None:
    grey = to_input(random_images(2, 1, 5, 5), InputSettings(channels=3))
    assert torch.equal(grey[:, 0], grey[:, 2])
    with pytest.raises(UserError, match=r"input.channels: 1, but the images have 3 channels"):
        to_input(random_images(2, 3, 5, 5), InputSettings(channels=1))


@given(st.integers(0, 4), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_augmentation_moves_and_mirrors_and_nothing_else(pad: int, flip: bool, seed: int) -> None:
    images = random_images(6, 2, 7, 5, seed=seed).clamp(min=1)  # zero is what comes from outside
    changed = augment(images, Augmentation(flip, pad), torch.Generator().manual_seed(seed))
    padded = torch.nn.functional.pad(images, [pad] * 4)
    for before, wide, after in zip(images, padded, changed, strict=True):
        candidates = [
            window.flip(-1) if mirrored else window
            for mirrored in ([False, True] if flip else [False])
            for window in (wide[:, y : y + 7, x : x + 5] for y in range(2 * pad + 1) for x in range(2 * pad + 1))
        ]
        assert any(torch.equal(after, candidate) for candidate in candidates)
        assert after.shape == before.shape


def test_augmentation_uses_both_outcomes() -> None:
    images = random_images(1, 1, 4, 4).expand(400, -1, -1, -1)
    flipped = augment(images, Augmentation(flip=True), torch.Generator().manual_seed(0)) != images
    assert 140 < int(flipped.flatten(1).any(1).sum()) < 260


@pytest.fixture
def photographs(tmp_path: Path) -> tuple[ImageFiles, list[np.ndarray]]:
    """Smooth JPEGs of several sizes, and their pixels as Pillow reads them."""
    names, pixels = [], []
    for index, (width, height) in enumerate([(60, 40), (40, 60), (50, 50), (33, 47), (64, 64)]):
        y, x = np.mgrid[0:height, 0:width]
        picture = np.stack(
            [127 + 120 * np.sin(x / (7 + index)), 127 + 120 * np.cos(y / 9), np.full_like(x, 40 * index)], -1
        )
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"{index}.jpg", quality=95)
        names.append(f"{index}.jpg")
        pixels.append(np.asarray(Image.open(tmp_path / f"{index}.jpg")))
    return ImageFiles(tmp_path, names), pixels


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_files_become_what_stored_bytes_become(
    photographs: tuple[ImageFiles, list[np.ndarray]], resize: Literal["squash", "crop"]
) -> None:
    stored, pixels = photographs
    inputs = InputSettings(size=32, resize=resize)
    subset = Subset(stored, torch.arange(5), tuple("abcde"), (0.5,) * 3, (0.2,) * 3, inputs)
    images, labels = subset.batch(torch.tensor([3, 0]))
    assert images.shape == (2, 3, 32, 32) == (2, *subset.image_shape)
    assert labels.tolist() == [3, 0]
    for image, index in zip(images, (3, 0), strict=True):
        direct = to_input(torch.from_numpy(pixels[index].transpose(2, 0, 1).copy())[None], inputs)[0]
        assert (image - direct).abs().mean() < 0.02


def test_batches_of_files_are_read_ahead_in_the_same_order(photographs: tuple[ImageFiles, list[np.ndarray]]) -> None:
    stored, _ = photographs
    subset = Subset(stored, torch.arange(5), tuple("abcde"), (0.5,) * 3, (0.2,) * 3, InputSettings(size=16, channels=1))
    parts = [torch.tensor([4, 1]), torch.tensor([0]), torch.tensor([2, 3])]
    batches = list(subset.batches(parts))
    assert [labels.tolist() for _, labels in batches] == [[4, 1], [0], [2, 3]]
    for part, (images, _) in zip(parts, batches, strict=True):
        assert torch.equal(images, subset.batch(part)[0])
        assert images.shape[1:] == (1, 16, 16)
    assert list(subset.batches([])) == []


def test_large_files_are_decoded_at_reduced_size_without_visible_difference(tmp_path: Path) -> None:
    y, x = np.mgrid[0:900, 0:1200]
    picture = np.stack([127 + 120 * np.sin(x / 90), 127 + 120 * np.cos(y / 70), (x + y) % 256 // 2], -1).astype(
        np.uint8
    )
    Image.fromarray(picture).save(tmp_path / "large.jpg", quality=95)
    ours = to_unit_interval(decode(tmp_path / "large.jpg", InputSettings(size=64)))
    direct = (
        np.asarray(Image.open(tmp_path / "large.jpg").resize((64, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        / 255
    )
    assert np.abs(ours.numpy() - direct).mean() < 0.01


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff\xe0 broken"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.jpg cannot be read as an image"):
        decode(tmp_path / "bad.jpg", InputSettings(size=16))


def test_a_truncated_file_is_named(photographs: tuple[ImageFiles, list[np.ndarray]], tmp_path: Path) -> None:
    stored, _ = photographs
    whole = (stored.folder / "0.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.jpg cannot be read"):
        decode(tmp_path / "cut.jpg", InputSettings(size=16))


def test_bytes_that_are_too_many_for_the_device_are_sent_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = random_images(6, 1, 4, 4), torch.arange(6)
    subset = Subset(images, labels, tuple("abcdef"), (0.5,), (0.2,))
    monkeypatch.setattr("creditflow.data.prepared._RESIDENT", 10)
    elsewhere = subset.to(torch.device("meta"))
    assert isinstance(elsewhere.images, torch.Tensor)
    assert elsewhere.images.device.type == "cpu"
    assert elsewhere.labels.device.type == "meta"
    assert elsewhere.batch(torch.tensor([1]))[0].device.type == "meta"


def test_images_that_the_network_enlarges_keep_their_own_size_and_channel() -> None:
    images, labels = random_images(2, 1, 4, 5), torch.arange(2)
    subset = Subset(images, labels, ("a", "b"), (0.5,), (0.2,), InputSettings(channels=3, upsample=8))
    assert (subset.image_shape, subset.inner_shape) == ((1, 4, 5), (3, 8, 8))
    assert torch.equal(subset.batch(torch.arange(2))[0], to_unit_interval(images))
    smaller = Subset(images, labels, ("a", "b"), (0.5,), (0.2,), InputSettings(size=6, upsample=8))
    assert (smaller.image_shape, smaller.inner_shape) == ((1, 6, 6), (1, 8, 8))
    coloured = Subset(random_images(2, 3, 4, 4), labels, ("a", "b"), (0.5,) * 3, (0.2,) * 3, InputSettings(channels=1))
    with pytest.raises(UserError, match=r"input.channels: 1, but the images have 3 channels"):
        coloured.batch(torch.arange(2))
