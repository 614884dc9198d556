"""Whether an image file has all pixels that its header promises.

Decoders stop without an error where compressed data end that are whole in themselves, but too short. The rest of the
picture then stays black or grey. So each format that allows this is looked at here.
"""

import io
import re
import zlib
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

#: A JPEG marker that stands between segments or ends a scan: neither a stuffed byte nor a restart.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_SOI, _EOI, _SOS, _DRI = 0xD8, 0xD9, 0xDA, 0xDD
_RESTARTS = [bytes([0xFF, 0xD0 + number]) for number in range(8)]
#: Start of a JPEG frame of any kind, and of the progressive ones.
_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE = {0xC2, 0xCA}
#: Bytes of a JPEG scan that mean something, and are no marker. A decoder takes missing data for zeros, so these do not
#: begin with zeros.
_NOISE = bytes((0xB5 + 37 * index) % 251 for index in range(512))
#: The grey that libjpeg gives to blocks whose data are missing, and how far colour conversion takes it from there.
_GREY, _NEARLY = 128, 2
#: PNG's channels by its type of colour.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: PNG's passes of an interlaced picture: first column, first row, and the steps from there.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
#: TIFF's tags.
_WIDTH, _LENGTH, _COMPRESSION, _SAMPLES, _PLANAR, _TABLES = 256, 257, 259, 277, 284, 347
_STRIPS, _STRIP_ROWS, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_ROWS, _TILES, _TILE_BYTES = 322, 323, 324, 325
_FAX, _JPEG = (2, 3, 4), 7


def check_canvas(image: Image.Image) -> None:
    """Raises ValueError for a GIF whose picture does not cover its canvas. The image must not be decoded yet."""
    if image.format == "GIF" and tuple(image.tile[0][1]) != (0, 0, *image.size):  # type: ignore[attr-defined]
        raise ValueError("its picture does not cover its canvas; save it again")


def check_whole(image: Image.Image, path: Path, *, thorough: bool = False) -> None:
    """Raises ValueError if a decoded image has pixels that its file does not give.

    `image` is as Pillow decoded it from `path`, perhaps at a smaller scale. Pillow itself refuses a JPEG that has no
    marker of its end. Of one that has the marker, the data of the last block alone may be missing; a `thorough` check
    notices that, too, and decodes the file twice more.
    """
    if image.format == "PNG" and _may_be_short(image):
        _check_png(path.read_bytes())
    elif image.format in ("JPEG", "MPO") and (thorough or _may_be_cut(image)):
        _check_jpeg(path.read_bytes())
    elif image.format == "TIFF":
        _check_tiff(image, path)
    elif image.format == "JPEG2000":
        _check_tiles(path.read_bytes())


def _short() -> ValueError:
    return ValueError("its data end before its last pixel; get a whole copy")


def _may_be_short(image: Image.Image) -> bool:
    """Returns whether the last row is black, as a missing one is. Of interlaced pictures other rows may be missing."""
    return bool(image.info.get("interlace")) or not np.asarray(image)[-1].any()


def _check_png(content: bytes) -> None:
    width, height = (int.from_bytes(content[place : place + 4], "big") for place in (16, 20))
    bits, colour, interlaced = content[24], content[25], content[28]
    parts = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = ((ceil((width - left) / across), ceil((height - top) / down)) for left, top, across, down in parts)
    promised = sum(
        rows * (1 + ceil(columns * bits * _CHANNELS[colour] / 8)) for columns, rows in sizes if columns > 0 and rows > 0
    )
    if _inflated(_png_data(content), promised) < promised:
        raise _short()


def _png_data(content: bytes) -> Iterator[bytes]:
    place = 8
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] == b"IDAT":
            yield content[place + 8 : place + 8 + length]
        place += length + 12


def _inflated(pieces: Iterator[bytes], limit: int) -> int:
    """Returns the number of bytes that come out of zlib's data; no more than a chunk above `limit`."""
    inflate, total = zlib.decompressobj(), 0
    for piece in pieces:
        waiting = piece
        while waiting and total < limit and not inflate.eof:
            total += len(inflate.decompress(waiting, 1 << 20))
            waiting = inflate.unconsumed_tail
    return total


def _may_be_cut(image: Image.Image) -> bool:
    """Returns whether the last pixel is as grey as a missing one. Of progressive pictures, details may be missing.

    So what is lost of the last block alone is not noticed here.
    """
    if image.info.get("progressive") or image.mode not in ("L", "RGB"):
        return True
    corner = image.crop((image.width - 1, image.height - 1, *image.size)).convert("L").tobytes()
    return abs(corner[0] - _GREY) <= _NEARLY


def _check_jpeg(content: bytes) -> None:
    markers = list(_markers(content))
    if not any(code == _EOI for code, _, _ in markers):  # some programs reserve a file, and its rest stays zeros
        raise ValueError("the marker of its end is missing; get a whole copy")
    if any(code in _PROGRESSIVE for code, _, _ in markers) and not _has_all_scans(markers):
        raise ValueError("its last scans are missing; get a whole copy")
    if _ends_early(content, markers):
        raise _short()


def _markers(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yields code, place and content of the segments of the first picture of a JPEG, to its end."""
    place = 0
    while match := _MARKER.search(content, place):
        code, place = match[1][0], match.end()
        if code == _SOI:
            continue
        length = 0 if code == _EOI else int.from_bytes(content[place : place + 2], "big")
        yield code, match.start(), content[place + 2 : place + length]
        if code == _EOI:
            return
        place += length


def _has_all_scans(markers: list[tuple[int, int, bytes]]) -> bool:
    """Returns whether the scans of a progressive JPEG give all bits of all coefficients."""
    left: dict[int, set[int]] = {}
    for code, _, segment in markers:
        if code in _SOF:
            left |= {segment[place]: set(range(64)) for place in range(6, 6 + 3 * segment[5], 3)}
        elif code == _SOS:
            components = segment[1 : 1 + 2 * segment[0] : 2]
            first, last, bits = segment[1 + 2 * segment[0] :][:3]
            for component in components if bits & 15 == 0 else b"":
                left.get(component, set()).difference_update(range(first, last + 1))
    return not any(left.values())


def _ends_early(content: bytes, markers: list[tuple[int, int, bytes]]) -> bool:
    """Returns whether the last scan has room for more data: whether they change the picture."""
    end = next((place for code, place, _ in markers if code == _EOI), len(content))
    restarts = _RESTARTS if any(code == _DRI for code, _, _ in markers) else ()
    more = _NOISE.join([b"", *restarts, b""])
    pictures = [content, content[:end] + more + content[end:]]
    before, after = (Image.open(io.BytesIO(picture), formats=("JPEG",)) for picture in pictures)
    return ImageChops.difference(before, after).getbbox(alpha_only=False) is not None


def _check_tiff(image: Image.Image, path: Path) -> None:
    tags = image.tag_v2  # type: ignore[attr-defined]
    width, height = tags[_WIDTH], tags[_LENGTH]  # Pillow has turned the picture where a tag says so
    if tags.get(_COMPRESSION) in _FAX:
        raise ValueError("it is packed as a fax is, which hides missing rows; save it as PNG")
    tiled = _TILES in tags
    places, lengths = (tags.get(tag, ()) for tag in ((_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)))
    rows = min(tags[_TILE_ROWS] if tiled else tags.get(_STRIP_ROWS, height), height)
    across = ceil(width / tags[_TILE_WIDTH]) if tiled else 1
    planes = tags.get(_SAMPLES, 1) if tags.get(_PLANAR, 1) == 2 else 1
    if len(places) < ceil(height / rows) * across * planes:
        raise _short()
    if tags.get(_COMPRESSION) == _JPEG:
        content = path.read_bytes()
        tables = bytes(tags.get(_TABLES, b""))
        for number, (place, length) in enumerate(zip(places, lengths, strict=False)):
            top = number // across * rows % (ceil(height / rows) * rows)
            part = content[place : place + length]
            _check_part(tables[:-2] + part[2:] if tables else part, rows if tiled else min(rows, height - top))


def _check_part(content: bytes, rows: int) -> None:
    markers = list(_markers(content))
    promised = max((int.from_bytes(segment[1:3], "big") for code, _, segment in markers if code in _SOF), default=0)
    if promised < rows or _ends_early(content, markers):
        raise _short()


def _check_tiles(content: bytes) -> None:
    """Raises ValueError if a tile of a JPEG 2000 is missing; how much detail a tile has is up to its author."""
    start = content.find(b"\xff\x4f\xff\x51")
    sizes = [int.from_bytes(content[start + 8 + 4 * index : start + 12 + 4 * index], "big") for index in range(8)]
    right, bottom, _, _, across, down, left, top = sizes
    missing = set(range(ceil((right - left) / across) * ceil((bottom - top) / down)))
    place = start + 2
    while content[place : place + 2] not in (b"\xff\x90", b""):  # the segments before the first tile
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    while content[place : place + 2] == b"\xff\x90":
        missing.discard(int.from_bytes(content[place + 4 : place + 6], "big"))
        length = int.from_bytes(content[place + 6 : place + 10], "big")
        place = place + length if length else len(content)
    if missing:
        raise _short()
