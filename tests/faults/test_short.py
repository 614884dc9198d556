"""Data that end too early, in packings that are whole: every reader refuses them, none fills the rest in.

A file that is cut anywhere is the simple case. The others have a header that promises more than the data give.
"""

import gzip
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save as dump_arrays

import formats
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.data import image_files
from creditflow.data.dataset import ImageFiles
from creditflow.data.formats.archives import read_members
from creditflow.data.formats.idx import read_idx
from creditflow.data.image_files import read_image
from creditflow.data.prepared import load_prepared
from creditflow.data.readable import drop_unreadable
from creditflow.data.splits import check_splits
from creditflow.instrument.images import load_images
from faults.test_fuzz import read_dataset

WIDTH, HEIGHT = 48, 40
RNG = np.random.default_rng(0)
#: A picture that is black or grey nowhere, above all not at its end.
PICTURE = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))[..., None] + RNG.integers(140, 165, (HEIGHT, WIDTH, 3))
COLOUR = Image.fromarray(PICTURE.astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(rows: bytes, height: int, interlaced: bool = False) -> bytes:
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", WIDTH, height, 8, 2, 0, 0, interlaced)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    written = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def interlaced_rows(pixels: np.ndarray) -> bytes:
    """Returns the rows of PNG's seven passes (Adam7), none of them filtered."""
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    passes = (pixels[top::down, left::across] for top, left, down, across in starts)
    return b"".join(b"\x00" + row.tobytes() for part in passes for row in part)


def taller_png(content: bytes) -> bytes:
    header = content[16:20] + struct.pack(">I", HEIGHT) + content[24:29]
    return content[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:]


def taller_gif(content: bytes) -> bytes:
    place = content.index(b"\x2c\x00\x00\x00\x00" + struct.pack("<H", WIDTH))
    tall = struct.pack("<H", HEIGHT)
    return content[:8] + tall + content[10 : place + 7] + tall + content[place + 9 :]


def taller_tiff(content: bytes, also_rows: bool) -> bytes:
    start = struct.unpack("<I", content[4:8])[0]
    changed = bytearray(content)
    for place in range(start + 2, start + 2 + 12 * struct.unpack("<H", content[start : start + 2])[0], 12):
        tag, kind = struct.unpack("<HH", content[place : place + 4])
        if tag == 257 or (tag == 278 and also_rows):
            changed[place + 8 : place + 12] = struct.pack("<I" if kind == 4 else "<Hxx", HEIGHT)
    return bytes(changed)


def taller_jpeg(content: bytes) -> bytes:
    place = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    return content[: place + 5] + struct.pack(">H", HEIGHT) + content[place + 7 :]


def taller_jpeg2000(content: bytes) -> bytes:
    place = content.index(b"\xff\x51")
    return content[: place + 10] + struct.pack(">I", HEIGHT) + content[place + 14 :]


#: By format and way of packing: the options that write it, and what makes its header promise the whole picture, where
#: the data are those of its upper half. Where that is None, the decoder's own checks are tried by cuts alone.
IMAGES: dict[str, tuple[str, dict[str, Any], Callable[[bytes], bytes] | None]] = {
    "AVIF": ("AVIF", {}, None),
    "BMP": ("BMP", {}, lambda content: content[:22] + struct.pack("<i", HEIGHT) + content[26:]),
    "GIF": ("GIF", {"interlace": 0}, taller_gif),
    "GIF interlaced": ("GIF", {"interlace": 1}, taller_gif),
    "JPEG": ("JPEG", {}, taller_jpeg),
    "JPEG with restarts": ("JPEG", {"restart_marker_rows": 1}, taller_jpeg),
    "JPEG progressive": ("JPEG", {"progressive": True}, taller_jpeg),
    "JPEG 2000": ("JPEG2000", {}, None),
    "JPEG 2000 in tiles": ("JPEG2000", {"tile_size": (WIDTH, 20), "no_jp2": True}, taller_jpeg2000),
    "PNG": ("PNG", {}, taller_png),
    "PPM": ("PPM", {}, lambda content: content.replace(b"48 20", b"48 40")),
    "WEBP": ("WEBP", {}, None),
    "WEBP lossless": ("WEBP", {"lossless": True}, None),
} | {
    f"TIFF {packing}, {'one strip' if one else 'strips'}": (
        "TIFF",
        {"compression": packing, "strip_size": 1 << 20 if one else 4 * 3 * WIDTH},
        lambda content, one=one: taller_tiff(content, also_rows=one),
    )
    for packing, one in product(("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"), (True, False))
}


def test_each_format_that_is_read_is_tried() -> None:
    assert {kind for kind, _, _ in IMAGES.values()} == set(image_files.FORMATS)


def pixels(path: Path, content: bytes, size: int = HEIGHT, *, thorough: bool = False) -> np.ndarray | None:
    """Returns the pixels of an image file, or None if it is refused, in one line."""
    path.write_bytes(content)
    try:
        return np.asarray(read_image(path, "RGB", size, thorough=thorough))
    except UserError as error:
        assert "\n" not in str(error)
        return None


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_is_cut_is_refused_or_whole(name: str, tmp_path: Path) -> None:
    kind, options, _ = IMAGES[name]
    content = encoded(COLOUR, kind, **options)
    whole = pixels(tmp_path / "image", content)
    assert whole is not None and np.abs(whole.astype(int) - PICTURE).mean() < 25
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        rest = pixels(tmp_path / "image", content[: int(share * len(content))])
        assert rest is None or np.array_equal(rest, whole)


@pytest.mark.parametrize("name", [name for name, (_, _, taller) in IMAGES.items() if taller is not None])
@pytest.mark.parametrize("size", [4, HEIGHT])
def test_an_image_whose_header_promises_more_rows(name: str, size: int, tmp_path: Path) -> None:
    kind, options, taller = IMAGES[name]
    assert taller is not None
    upper = encoded(COLOUR.crop((0, 0, WIDTH, HEIGHT // 2)), kind, **options)
    assert pixels(tmp_path / "image", upper, size) is not None
    assert pixels(tmp_path / "image", taller(upper), size) is None


@pytest.mark.parametrize("name", ["JPEG", "JPEG with restarts", "JPEG progressive"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_is_cut_and_closed(name: str, mode: str, tmp_path: Path) -> None:
    content = encoded(COLOUR.convert(mode), "JPEG", **IMAGES[name][1])
    scan = content.index(b"\xff\xda") + 12
    for share, size in product((0.1, 0.4, 0.7, 0.85), (4, HEIGHT)):
        cut = content[: scan + int(share * (len(content) - scan))].rstrip(b"\xff") + b"\xff\xd9"
        assert pixels(tmp_path / "image", cut, size) is None


#: Ways of writing a JPEG.
JPEGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with restarts": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
    "fine": {"quality": 95, "subsampling": 0},
    "coarse, with tables of its own": {"quality": 30, "optimize": True},
}
SMALL = COLOUR.crop((0, 0, 21, 18))  # a block is a third of it


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_lacks_any_number_of_its_last_bytes(name: str, mode: str, tmp_path: Path) -> None:
    """It ends there; or a marker says that it ends there; or zeros stand for the rest, as in a file that was reserved.

    What is lost may be so little that nobody sees it: of the last byte, only some bits count.
    """

    def read(content: bytes) -> np.ndarray | None:
        return pixels(tmp_path / "image", content, thorough=True)

    content = encoded(SMALL.convert(mode), "JPEG", **JPEGS[name])
    whole = read(content)
    assert whole is not None
    for tail in (bytes(99), b"a text", content[: len(content) // 2]):  # cameras and archives write behind the end
        assert np.array_equal(read(content + tail), whole)
    refused = 0
    for lost in range(1, 24):
        cut, closed = content[:-lost], content[: -2 - lost].rstrip(b"\xff") + b"\xff\xd9"
        assert read(cut) is None
        assert read(cut + bytes(lost)) is None
        rest = read(closed)
        assert rest is None or np.array_equal(rest, whole)
        refused += rest is None
    assert refused >= 20


def test_prepare_and_the_audit_look_at_the_last_block(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    content = encoded(SMALL, "JPEG", **JPEGS["fine"])
    (tmp_path / "a/0.jpg").write_bytes(content[:-12] + b"\xff\xd9")
    assert pixels(tmp_path / "b", content[:-12] + b"\xff\xd9") is not None  # training does not look once more
    kept, reasons = drop_unreadable("toy", {"train": (ImageFiles(tmp_path / "a", ["0.jpg"]), np.zeros(1, np.int64))})
    assert "data end before its last pixel" in reasons["train"]["0.jpg"] and not kept["train"][0].names
    with pytest.raises(UserError, match=r"0\.jpg cannot be read .*data end before its last pixel; get a whole copy"):
        load_images(str(tmp_path))


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_of_one_level_is_whole(name: str, level: int, tmp_path: Path) -> None:
    kind, options, _ = IMAGES[name]
    read = pixels(tmp_path / "image", encoded(Image.new("RGB", (WIDTH, HEIGHT), (level,) * 3), kind, **options))
    assert read is not None and np.abs(read.astype(int) - level).max() <= 3


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_lacks_its_last_rows(interlaced: bool, tmp_path: Path) -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2] = 200
    rows = interlaced_rows(image) if interlaced else b"".join(b"\x00" + row.tobytes() for row in image)
    whole = pixels(tmp_path / "image", png_of(rows, HEIGHT, interlaced))
    assert whole is not None and np.array_equal(whole, image)
    for lacking in (1, WIDTH, len(rows) // 2):
        assert pixels(tmp_path / "image", png_of(rows[:-lacking], HEIGHT, interlaced)) is None


def test_a_gif_whose_picture_is_smaller_than_its_canvas(tmp_path: Path) -> None:
    content = encoded(COLOUR, "GIF")
    wider = content[:6] + struct.pack("<HH", WIDTH + 10, HEIGHT + 10) + content[10:]
    assert pixels(tmp_path / "image", wider) is None


def test_a_photograph_with_a_preview_behind_it_is_whole(tmp_path: Path) -> None:
    """Cameras write two JPEGs into one file; only the first counts, also where it is grey at its end."""
    buffer = io.BytesIO()
    grey = COLOUR.copy()
    grey.paste((128, 128, 128), (0, HEIGHT // 2, WIDTH, HEIGHT))
    grey.save(buffer, "MPO", save_all=True, append_images=[COLOUR.resize((24, 20))])
    content = buffer.getvalue()
    read = pixels(tmp_path / "image", content)
    assert read is not None and read.shape == PICTURE.shape
    end = content.index(b"\xff\xd9")
    assert pixels(tmp_path / "image", content[: end // 2].rstrip(b"\xff") + content[end:]) is None


def test_a_jpeg_2000_whose_comment_looks_like_a_tile_is_whole(tmp_path: Path) -> None:
    content = encoded(COLOUR, "JPEG2000", no_jp2=True)
    place = 4 + int.from_bytes(content[4:6], "big")  # behind the first segment
    comment = b"\x00\x01\xff\x90\x00\x0a\x00\x07"
    longer = content[:place] + b"\xff\x64" + struct.pack(">H", 2 + len(comment)) + comment + content[place:]
    assert pixels(tmp_path / "image", longer) is not None


def test_a_bmp_that_is_run_length_encoded_and_ends_early(tmp_path: Path) -> None:
    runs = b"\x04\x01\x00\x00" * 3  # three of four rows
    table = bytes([0, 0, 0, 0, 9, 200, 90, 0])
    for data, whole in ((runs + b"\x04\x01\x00\x01", True), (runs + b"\x00\x01", False)):
        header = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 8, 1, len(data), 0, 0, 2, 0)
        start = 14 + len(header) + len(table)
        content = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + table + data
        assert (pixels(tmp_path / "image", content) is not None) == whole


def short(array: np.ndarray) -> np.ndarray:
    return array[:-1]


def cifar_batch(cut: Callable[[np.ndarray], np.ndarray]) -> dict[str, bytes]:
    def change(batch: dict[bytes, Any]) -> dict[bytes, Any]:
        return batch | {b"data": cut(batch[b"data"])}

    return formats.cifar10(change)[0]


def digits(rows: int, columns: int) -> dict[str, bytes]:
    return {"digits.csv": (",".join(["1"] * columns) + "\n").encode() * rows}


def shorter(members: dict[str, bytes], name: str, n: int) -> None:
    members[name] = members[name][:-n]


#: Datasets in archives that are whole, in which an array is shorter than the rest says.
DATASETS: dict[str, tuple[str, Callable[[], dict[str, bytes]]]] = {
    "MNIST's images": ("mnist", lambda: formats.mnist(train_images=np.zeros((11, 28, 28), np.uint8))[0]),
    "MNIST's labels": ("mnist", lambda: formats.mnist(test_labels=np.zeros(9, np.uint8))[0]),
    "CIFAR's images": ("cifar10", lambda: cifar_batch(short)),
    "CIFAR's pixels": ("cifar10", lambda: cifar_batch(lambda data: data[:, :-1])),
    "SVHN's images": ("svhn", lambda: formats.svhn(lambda content: content.update(X=content["X"][..., :-1]))[0]),
    "SVHN's labels": ("svhn", lambda: formats.svhn(lambda content: content.update(y=content["y"][:-1]))[0]),
    "STL-10's pixels": ("stl10", lambda: formats.stl10(lambda m: shorter(m, "stl10_binary/train_X.bin", 5))[0]),
    "STL-10's labels": ("stl10", lambda: formats.stl10(lambda m: shorter(m, "stl10_binary/test_y.bin", 1))[0]),
    "MedMNIST's images": ("pathmnist", lambda: formats.pathmnist(train_images=np.zeros((11, 28, 28, 3), np.uint8))[0]),
    "MedMNIST's labels": ("pathmnist", lambda: formats.pathmnist(test_labels=np.zeros((9, 1), np.uint8))[0]),
    "digits, rows": ("digits", lambda: digits(1796, 65)),
    "digits, columns": ("digits", lambda: digits(1797, 64)),
}


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_with_a_short_array(name: str, tmp_path: Path) -> None:
    dataset, make = DATASETS[name]
    files = make()
    formats.write(tmp_path, files | {name.removesuffix(".gz"): content for name, content in files.items()})
    plugin = plugins.load("dataset", dataset).DATASET
    with pytest.raises(UserError):  # as `prepare` does
        check_splits(plugin.read(tmp_path), plugin.class_names)


def short_mat() -> bytes:
    """Returns SVHN's file with compressed variables that are whole in zlib's eyes, and short in MATLAB's."""
    content = formats.svhn()[0]["train_32x32.mat"]
    size = struct.unpack("<I", content[132:136])[0]
    data = zlib.compress(zlib.decompress(content[136 : 136 + size])[:-3000])
    return content[:132] + struct.pack("<I", len(data)) + data + content[136 + size :]


def short_npz() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((12, 28, 28, 3), np.uint8))
    names = [f"{split}_{part}.npy" for split, part in product(("train", "test"), ("images", "labels"))]
    return formats.zipped(dict.fromkeys(names, buffer.getvalue()[:-7]))


def short_safetensors() -> bytes:
    content = dump_arrays({"train_images": np.ones((9, 1, 4, 4), np.uint8), "train_labels": np.zeros(9, np.int64)})
    return content[:-10]


def cut(content: bytes) -> Iterator[bytes]:
    yield from (content[: int(share * len(content))] for share in (0.05, 0.5, 0.95))


#: Packings of arrays and files whose content is shorter than they say.
PACKED: dict[str, tuple[Callable[[], Iterator[bytes]], Callable[[Path], Any]]] = {
    "idx": (lambda: map(gzip.compress, cut(formats.idx(RNG.integers(1, 9, (9, 8, 8))))), read_idx),
    "mat": (lambda: iter([short_mat()]), lambda path: read_dataset("svhn")(path.parent)),
    "npz": (lambda: iter([short_npz()]), lambda path: read_dataset("pathmnist")(path.parent)),
    "tar": (
        lambda: map(gzip.compress, cut(gzip.decompress(formats.tar({"a": bytes(9000)}))[:9000])),
        lambda path: read_members(path, ["a"]),
    ),
    "safetensors": (lambda: iter([short_safetensors()]), lambda path: load_prepared(path, "train")),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_packing_with_too_little_in_it(name: str, tmp_path: Path) -> None:
    make, read = PACKED[name]
    path = tmp_path / {"mat": "train_32x32.mat", "npz": "pathmnist.npz"}.get(name, "file")
    formats.write(tmp_path, formats.svhn()[0] if name == "mat" else {})
    for content in make():
        path.write_bytes(content)
        with pytest.raises(UserError):
            read(path)
