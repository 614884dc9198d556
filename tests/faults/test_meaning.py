"""Values whose meaning must not change on the way: images of every kind, arrays, and the numbers of settings."""

import argparse
import importlib
import io
import json
import math
import pkgutil
import re
import struct
import types
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
import yaml
from PIL import Image, ImageCms
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from safetensors.numpy import save as dump_arrays

import creditflow
from creditflow.core.errors import UserError
from creditflow.core.files import seal, sha256
from creditflow.core.settings import SettingsModel
from creditflow.data.dataset import ImageFiles
from creditflow.data.datasets import digits
from creditflow.data.image_files import MAX_PIXELS, MAX_RATIO
from creditflow.data.inputs import decode
from creditflow.data.prepared import load_prepared
from creditflow.data.readable import drop_unreadable
from creditflow.data.settings import InputSettings
from creditflow.data.splits import check_splits
from creditflow.stages import command_line
from formats import idx, mnist, nus_wide, row, write
from helpers import ROOT
from preparing import Stages, check_refused

#: Grey levels that rise from left to right, of 8 and of 16 bits: the mean is 127.5 of 255.
RAMP = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
DEEP = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (64, 1))
GREY = Image.fromarray(RAMP)


def lab() -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(GREY.convert("RGB"), *profiles, outputMode="LAB")
    assert converted is not None
    return converted


def with_alpha(alpha: int) -> Image.Image:
    image = GREY.convert("RGBA")
    image.putalpha(alpha)
    return image


def palette(transparent: int | None) -> Image.Image:
    image = GREY.convert("P")
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


def png(bits: int, colour: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Returns a PNG file of 256x64 pixels whose rows are all alike, with chunks before the pixels."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 256, 64, bits, colour, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress((b"\x00" + row) * 64)),
        (b"IEND", b""),
    ]
    written = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def signed_tiff() -> bytes:
    """Returns a TIFF file whose pixels are bytes with a sign: -128 is black."""
    buffer = io.BytesIO()
    Image.fromarray(RAMP - 128).save(buffer, "TIFF", tiffinfo={339: 2})
    return buffer.getvalue()


#: Files as no library writes them, and a part of the reason why they are refused; "" if they are the ramp of 8 bits.
BY_HAND: dict[str, tuple[bytes, str]] = {
    "16 bits": (png(16, 0, DEEP[0].astype(">u2").tobytes()), ""),
    "16 bits colour": (png(16, 2, np.repeat(DEEP[0].astype(">u2"), 3).tobytes()), ""),
    "16 bits with a transparent level": (
        png(16, 0, DEEP[0].astype(">u2").tobytes(), (b"tRNS", DEEP[0, 9:10].astype(">u2").tobytes())),
        "transparent pixels",
    ),
    "8 bits with a transparent level": (png(8, 0, RAMP[0].tobytes(), (b"tRNS", b"\x00\x07")), "transparent pixels"),
    "palette that is too short": (
        png(8, 3, RAMP[0].tobytes(), (b"PLTE", b"abc" * 99)),
        "colour 255 of a palette of 99",
    ),
    "no palette": (png(8, 3, RAMP[0].tobytes()), "palette of 0"),
    "signed bytes": (signed_tiff(), "signed"),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_files_that_no_library_writes(name: str, tmp_path: Path) -> None:
    content, reason = BY_HAND[name]
    (tmp_path / "image").write_bytes(content)
    said = reason_in_prepare(tmp_path / "image")
    assert reason in said and bool(reason) == bool(said)
    if not reason:
        assert abs(decode(tmp_path / "image", InputSettings(size=64)).float().mean() - 127.5) < 1


#: What is scaled rightly: to the ramp of 8 bits.
RIGHT: dict[str, tuple[Image.Image, str]] = {
    "8 bits": (GREY, "PNG"),
    "colour": (GREY.convert("RGB"), "PNG"),
    "JPEG": (GREY.convert("RGB"), "JPEG"),
    "CMYK JPEG": (GREY.convert("CMYK"), "JPEG"),
    "CMYK TIFF": (GREY.convert("CMYK"), "TIFF"),
    "YCbCr TIFF": (GREY.convert("YCbCr"), "TIFF"),
    "palette": (palette(None), "PNG"),
    "opaque alpha": (with_alpha(255), "PNG"),
    "opaque grey alpha": (GREY.convert("LA"), "PNG"),
    "16 bits PNG": (Image.fromarray(DEEP), "PNG"),
    "16 bits TIFF": (Image.fromarray(DEEP), "TIFF"),
    "16 bits PGM": (Image.fromarray(DEEP), "PPM"),
    "16 bits JPEG 2000": (Image.fromarray(DEEP), "JPEG2000"),
}
#: What is refused, and a part of the reason.
REFUSED: dict[str, tuple[Image.Image, str, str]] = {
    "32 bits": (Image.fromarray(DEEP.astype(np.int32)), "TIFF", "no certain conversion"),
    "float": (Image.fromarray(DEEP.astype(np.float32)), "TIFF", "no certain conversion"),
    "float in [0, 1]": (Image.fromarray((RAMP / 255).astype(np.float32)), "TIFF", "no certain conversion"),
    "Lab": (lab(), "TIFF", "no certain conversion"),
    "half transparent": (with_alpha(128), "PNG", "transparent pixels"),
    "transparent WebP": (with_alpha(0), "WEBP", "transparent pixels"),
    "transparent grey": (with_alpha(100).convert("LA"), "PNG", "transparent pixels"),
    "transparent entry of a palette": (palette(7), "PNG", "transparent pixels"),
    "8000x1": (Image.new("L", (8000, 1)), "PNG", "one side is more than 32 times the other"),
    "40000x1": (Image.new("L", (40000, 1)), "PNG", "one side is more than 32 times the other"),
    "1x5000": (Image.new("L", (1, 5000)), "BMP", "one side is more than 32 times the other"),
    "EPS": (GREY, "EPS", "cannot identify"),
}


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(tmp_path, monkeypatch)


def saved(folder: Path, image: Image.Image, kind: str, **options: Any) -> Path:
    image.save(folder / "image", kind, **options)
    return folder / "image"


def reason_in_prepare(path: Path) -> str:
    """Returns why `prepare` leaves a file out; "" if it does not."""
    split = ImageFiles(path.parent, [path.name]), np.array([0])
    _, unreadable = drop_unreadable("toy", {"train": split})
    return unreadable["train"].get(path.name, "")


@pytest.mark.parametrize("name", RIGHT)
def test_images_that_are_scaled_rightly(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path, *RIGHT[name])
    assert reason_in_prepare(path) == ""
    for channels in (None, 1):
        pixels = decode(path, InputSettings(size=64, channels=channels)).numpy()
        expected = np.asarray(GREY.resize((64, 64), Image.Resampling.BILINEAR))
        assert np.abs(pixels.astype(int) - expected).mean() < 1.5
        assert abs(pixels.mean() - 127.5) < 1


@pytest.mark.parametrize("name", REFUSED)
def test_images_that_are_refused_in_prepare_and_in_use_alike(name: str, tmp_path: Path) -> None:
    image, kind, reason = REFUSED[name]
    path = saved(tmp_path, image, kind)
    assert reason in reason_in_prepare(path)
    for resize in ("squash", "crop"):
        with pytest.raises(UserError, match=reason) as caught:
            decode(path, InputSettings(size=32, resize=resize))
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("size", [(10000, 9500), (20000, 20000), (2**31 - 1, 2**31 - 1)])
def test_headers_that_promise_huge_images_are_refused_before_anything_is_decoded(
    size: tuple[int, int], tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    GREY.save(buffer, "PNG")
    content = buffer.getvalue()
    header = b"IHDR" + struct.pack(">II", *size) + content[24:29]
    path = tmp_path / "image"
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    assert re.search("more than 89,478,485|exceeds limit", reason_in_prepare(path))
    with pytest.raises(UserError, match=r"more than 89,478,485|exceeds limit"):
        decode(path, InputSettings(size=32))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_and_pages_are_refused(kind: str, tmp_path: Path) -> None:
    path = saved(tmp_path, GREY.convert("RGB"), kind, save_all=True, append_images=[Image.new("RGB", GREY.size, "red")])
    assert "several pictures" in reason_in_prepare(path)
    with pytest.raises(UserError, match="several pictures"):
        decode(path, InputSettings(size=32))


def test_a_photograph_with_its_preview_behind_it_is_the_photograph(tmp_path: Path) -> None:
    preview = Image.new("RGB", (8, 8), "red")
    path = saved(tmp_path, GREY.convert("RGB"), "MPO", save_all=True, append_images=[preview])
    assert reason_in_prepare(path) == ""
    assert abs(decode(path, InputSettings(size=32)).float().mean() - 127.5) < 1


@pytest.mark.parametrize(("kind", "orientation"), list(product(["JPEG", "PNG", "WEBP", "TIFF", "AVIF"], range(1, 9))))
def test_photographs_stand_upright(kind: str, orientation: int, tmp_path: Path) -> None:
    """The upper left quarter of an upright picture is white; a camera stores it turned, and says so."""
    upright = Image.new("RGB", (32, 32))
    upright.paste((255, 255, 255), (0, 0, 16, 16))
    undo = [None, 0, 3, 1, 5, 2, 6, 4]  # the values of Image.Transpose that turn the picture as a camera does
    turn = undo[orientation - 1]
    stored = upright if turn is None else upright.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(saved(tmp_path, stored, kind, exif=exif, quality=95), InputSettings(size=32)).numpy()
    assert pixels[:, 2:14, 2:14].min() > 240 and pixels[:, 18:, :].max() < 15 and pixels[:, :, 18:].max() < 15


def test_exif_that_is_damaged_turns_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path, GREY.convert("RGB"), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01")
    assert reason_in_prepare(path) == ""
    assert decode(path, InputSettings(size=32)).shape == (3, 32, 32)


def test_a_long_image_at_a_large_size_takes_little_memory(tmp_path: Path) -> None:
    """What is kept of it is computed, and what is cut off is not; the result is that of the whole computation."""
    wide = Image.fromarray(np.tile(RAMP[:8], (1, 1)))
    assert wide.size == (256, 8) and MAX_RATIO * 8 == 256
    path = saved(tmp_path, wide, "PNG")
    assert round(1800 * 256 / 224) ** 2 * MAX_RATIO > MAX_PIXELS
    large = decode(path, InputSettings(size=1800, resize="crop")).float()
    small = decode(path, InputSettings(size=224, resize="crop")).float()
    assert large.shape == (3, 1800, 1800)
    assert abs(large.mean() - small.mean()) < 1 and abs(large[0, 0, 0] - small[0, 0, 0]) < 3


def test_prepare_leaves_out_what_it_does_not_understand(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    train = {f"images/{index}.jpg": row(index % 21, n=21) for index in range(4)}
    write(stages.here, nus_wide(train))
    GREY.save(stages.here / "images/0.jpg", "JPEG")
    Image.fromarray(DEEP).save(stages.here / "images/1.jpg", "PNG")
    Image.new("L", (8000, 1)).save(stages.here / "images/2.jpg", "PNG")
    GREY.save(stages.here / "images/3.jpg", "PNG")
    stages.fetch("nus_wide")
    path = stages.prepare("nus_wide", "--max-unreadable", "0.3")
    assert "left out images/2.jpg: it has 8000x1 pixels" in capsys.readouterr().out
    subset = load_prepared(path, "train", inputs=InputSettings(size=8))
    x, _ = subset.batch(subset.in_order()[0])
    assert x.mean((1, 2, 3)).tolist() == pytest.approx([0.5] * 3, abs=0.01)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 1, 4, 4), np.float32),
        np.full((2, 1, 4, 4), 300, np.int16),
        np.full((2, 1, 4, 4), -1, np.int8),
        np.zeros((2, 1, 4, 4), ">u2"),
        np.zeros((2, 1, 4, 4), bool),
        np.zeros((2, 1, 1, 8000), np.uint8),
        np.zeros((2, 1, 0, 4), np.uint8),
        np.zeros((2, 0, 4, 4), np.uint8),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_arrays_of_other_kinds_are_refused(images: Any) -> None:
    with pytest.raises(UserError, match="images") as caught:
        check_splits({"train": (images, np.array([0, 1]))}, ["a", "b"])
    assert "\n" not in str(caught.value)


def other_type(code: int) -> bytes:
    return b"\x00\x00" + bytes([code]) + idx(np.zeros((12, 28, 28)))[3:]


@pytest.mark.parametrize("code", [0x09, 0x0B, 0x0C, 0x0D, 0x0E])
def test_idx_files_of_other_numbers_are_refused(code: int, stages: Stages) -> None:
    files, _ = mnist()
    check_refused("mnist", files | {"train-images-idx3-ubyte.gz": other_type(code)}, "IDX file of unsigned", stages)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.__setitem__((0, 3), 17),
        lambda table: table.__setitem__((5, 0), -1),
        lambda table: table.__setitem__((9, 64), 10),
        lambda table: table.__setitem__((1, 1), 2**40),
    ],
)
def test_digits_outside_their_range_are_refused(change: Callable[[Any], None], tmp_path: Path) -> None:
    table = np.zeros((1797, 65), np.int64)
    path = tmp_path / "digits.csv"
    for spoil, fits in ((lambda _: None, True), (change, False)):
        spoil(table)
        with io.StringIO() as text:
            np.savetxt(text, table, "%d", delimiter=",")
            path.write_text(text.getvalue(), encoding="utf-8")
        if fits:
            digits.DATASET.read(tmp_path)
        else:
            with pytest.raises(UserError, match=r"levels 0\.\.16 and a digit"):
                digits.DATASET.read(tmp_path)


SOUND: dict[str, Any] = {
    "images": np.zeros((4, 1, 4, 4), np.uint8),
    "labels": np.array([0, 1, 0, 1]),
    "facts": {"class_names": ["a", "b"], "mean": [0.5], "std": [0.2]},
}


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("images", np.zeros((4, 1, 4, 4), np.float32), "images must be uint8"),
        ("images", np.zeros((4, 16), np.uint8), "images must be uint8"),
        ("images", np.zeros((3, 1, 4, 4), np.uint8), "a label for each"),
        ("images", np.zeros((4, 1, 1, 99), np.uint8), "times the other"),
        ("labels", np.array([0, 1, 0, 2]), r"labels must lie in 0\.\.1"),
        ("labels", np.array([0, -1, 0, 1]), r"labels must lie in 0\.\.1"),
        ("labels", np.array([0.0, 1, 0, 1]), "labels must be whole numbers"),
        ("labels", np.zeros((4, 2), np.uint8), "has no label"),
        ("labels", np.full((4, 2), 2, np.uint8), "must be 0 or 1"),
        ("facts", {"class_names": ["a"]}, r"labels must lie in 0\.\.0"),
        ("facts", {"mean": [math.nan]}, "must be finite"),
        ("facts", {"std": [math.inf]}, "must be finite"),
        ("facts", {"std": [0.0]}, "each deviation above 0"),
        ("facts", {"std": [True]}, "must be finite numbers"),
        ("facts", {"mean": [0.5, 0.5, 0.5]}, "are not 1 numbers each"),
    ],
)
def test_a_prepared_dataset_is_a_dataset_whatever_its_seal_says(
    part: str, value: Any, message: str, tmp_path: Path
) -> None:
    def written(changed: dict[str, Any]) -> Path:
        parts = SOUND | changed
        arrays = {"train_images": parts["images"], "train_labels": parts["labels"]}
        facts = parts["facts"] | {"sha256": {name: sha256(array.data) for name, array in arrays.items()}}
        content = dump_arrays(arrays, metadata={"creditflow": json.dumps(seal(facts))})
        (tmp_path / "file").write_bytes(content)
        return tmp_path / "file"

    assert len(load_prepared(written({}), "train").labels) == 4
    with pytest.raises(UserError, match=message) as caught:
        load_prepared(written({part: SOUND["facts"] | value if part == "facts" else value}), "train")
    assert "\n" not in str(caught.value)


def numbers_without_bounds(schema: Any, place: str = "") -> Iterator[str]:
    """Yields the places of the numbers in a JSON schema that lack a minimum or a maximum."""
    if isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from numbers_without_bounds(part, f"{place}/{index}")
    elif isinstance(schema, dict):
        kinds = schema.get("type")
        numeric = {"integer", "number"} & set(
            kinds if isinstance(kinds, list) else [kinds] if isinstance(kinds, str) else []
        )
        bounds = [{"minimum", "exclusiveMinimum"} & schema.keys(), {"maximum", "exclusiveMaximum"} & schema.keys()]
        if numeric and not all(bounds) and not {"const", "enum"} & schema.keys():
            yield place
        for key, part in schema.items():
            if key not in ("const", "enum", "default", "examples"):
                yield from numbers_without_bounds(part, f"{place}/{key}")


def test_every_number_of_the_schema_has_a_minimum_and_a_maximum() -> None:
    schema = yaml.safe_load((ROOT / "config/schema.yaml").read_text(encoding="utf-8"))
    assert list(numbers_without_bounds(schema)) == []
    del schema["$defs"]["TrainingSettings"]["properties"]["epochs"]["anyOf"][0]["maximum"]
    assert list(numbers_without_bounds(schema)) == ["/$defs/TrainingSettings/properties/epochs/anyOf/0"]


def settings_models() -> list[type[BaseModel]]:
    """Returns all models of settings that the library has, those of all plugins and of the workflow among them."""
    for module in pkgutil.walk_packages(creditflow.__path__, "creditflow."):
        if any(word in module.name for word in ("setting", "model", "keys", "retrieval", "config", "epsilons")):
            importlib.import_module(module.name)
    return sorted(set(_below(SettingsModel)), key=lambda model: (model.__module__, model.__qualname__))


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for inner in model.__subclasses__():
        yield inner
        yield from _below(inner)


def unbounded(annotation: Any, metadata: list[Any]) -> Iterator[str]:
    """Yields the numbers within a type that lack a minimum or a maximum."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = [limit for part in inner[1:] for limit in (part.metadata if isinstance(part, FieldInfo) else [part])]
        yield from unbounded(inner[0], [*limits, *metadata])
    elif annotation in (int, float):
        stated = {
            name for limit in metadata for name in ("ge", "gt", "le", "lt") if getattr(limit, name, None) is not None
        }
        if not (stated & {"ge", "gt"} and stated & {"le", "lt"}):
            yield annotation.__name__
    elif origin is not Literal:
        for part in inner:
            yield from unbounded(part, metadata if origin in (Union, types.UnionType) else [])


def test_every_number_of_every_setting_has_a_minimum_and_a_maximum() -> None:
    models = settings_models()
    names = {model.__name__ for model in models}
    assert {"ExperimentKeys", "AttackKeys", "TrainingSettings", "PopulationSettings", "Protocol", "View"} <= names
    assert len(models) > 40
    lacking = [
        f"{model.__module__}.{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if list(unbounded(field.annotation, field.metadata))
    ]
    assert lacking == []


def test_the_walk_over_numbers_finds_those_without_bounds() -> None:
    assert list(unbounded(int | None, [])) == ["int"]
    assert list(unbounded(Annotated[dict[str, tuple[float, ...]], FieldInfo()], [])) == ["float"]
    assert list(unbounded(bool | str | Literal[1, 3] | None, [])) == []


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (command_line.positive, ["1", "100000000"], ["0", "-1", "1e3", "9" * 31, "9" * 5000, "x"]),
        (command_line.natural, ["0", "4294967295"], ["-1", "4294967296", "1" + "0" * 30]),
        (command_line.thread_count, ["1", "4096"], ["0", "4097", "2147483648"]),
        (command_line.image_size, ["1", "10000"], ["0", "10001"]),
        (command_line.epsilon, ["0", "0.1", "1e7"], ["1e300", "inf", "nan", "-0.1", "1e8"]),
        (command_line.positive_number, ["1e-4", "100"], ["0", "1e300", "inf", "nan"]),
        (command_line.share, ["0", "1"], ["1.01", "nan", "-1"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_numbers_on_command_lines_have_maxima(read: Callable[[str], float], good: list[str], bad: list[str]) -> None:
    for text in good:
        assert read(text) == float(text)
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            read(text)
        assert len(str(caught.value)) < 300
