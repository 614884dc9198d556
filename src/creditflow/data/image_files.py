"""Image files as pixels: one check of what a file may be, which `prepare` and the training share.

What cannot become 8-bit grey or colour without a guess is refused: 32-bit and float images, transparent pixels,
animations, shapes that no photograph has, and files whose data end before their last pixel.
"""

import math
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from creditflow.core.errors import UserError, one_line
from creditflow.data.whole_images import check_canvas, check_whole

#: The formats that are read; MPO is read as JPEG. Others are no photographs, and some have Pillow start a program
#: (EPS: Ghostscript).
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
#: The most pixels of a file (Pillow warns above this number), and of an image that is scaled before its centre is cut.
MAX_PIXELS = (1 << 30) // 12
#: The longer side of an image is at most this number of times the shorter one.
MAX_RATIO = 32
#: torchvision's ratio of resized side to crop for its ImageNet weights.
CROP_MARGIN = 256 / 224

#: Pillow's modes of 8 bits (or one) that have no transparency of their own; `convert` scales them rightly.
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
#: EXIF's tag of the orientation, and how an image is turned to be upright.
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: 0..65535 as 0..255, rounded. A table takes a tenth of the memory that arithmetic on a large image takes.
_EIGHT_OF_SIXTEEN = ((np.arange(1 << 16) + 128) // 257).astype(np.uint8)
#: TIFF's tag of the kind of numbers: 1 is whole numbers without a sign.
_SAMPLE_FORMAT = 339
#: TIFF's tags of the bits of a pixel and of what 0 means, with the values that we can scale (0 is black).
_BITS, _PHOTOMETRIC = 258, 262
_SCALABLE = {_BITS: (16,), _PHOTOMETRIC: 1}

# Images with more pixels are refused by `_check_shape`, so nobody needs Pillow's warning.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def read_image(path: Path, mode: str, size: int, *, thorough: bool = False) -> Image.Image:
    """Returns an image file in a mode, upright, at least twice `size` pixels high and wide if the file has so many.

    Args:
        path: the file.
        mode: "L" (grey) or "RGB".
        size: the size that is needed. A JPEG decoder can halve an image while it decodes, which saves time.
        thorough: whether a JPEG is decoded twice more, so that not even the data of its last block can be missing.
            `prepare` and the audit do so; it would slow training.

    Sixteen bits are scaled to eight. Raises UserError, which names the file, if it cannot be read, or is an image that
    is not taken; see the module's docstring.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a named pipe would be waited for
            raise ValueError("it is not a plain file")
        with Image.open(path, formats=FORMATS) as image:
            _check_shape(image)
            _check_frames(image)
            check_canvas(image)
            image.draft(mode, (2 * size, 2 * size))
            image.load()
            check_whole(image, path, thorough=thorough)
            pixels = _converted(image, mode)
            turn = _TURNS.get(
                _orientation(image)
            )  # after the pixels: Pillow itself turns TIFF, and then forgets the tag
        return pixels if turn is None else pixels.transpose(turn)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders fail in many ways on damaged files
        why = one_line(error).replace(str(path), path.name)
        raise UserError(
            f"{path} cannot be read as an image ({why}); replace it, or prepare the dataset again"
        ) from error


def _check_shape(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"it has {width}x{height} pixels, more than {MAX_PIXELS:,}; scale it down")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ValueError(f"it has {width}x{height} pixels: one side is more than {MAX_RATIO} times the other; crop it")


def _check_frames(image: Image.Image) -> None:
    # Cameras write MPO: a JPEG, which is the first picture, and previews or the other eye's view behind it.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ValueError("it has several pictures (an animation, or pages); keep one")


def _check_samples(image: Image.Image) -> None:
    tags = getattr(image, "tag_v2", {})
    formats = tags.get(_SAMPLE_FORMAT, (1,)) if image.format == "TIFF" else (1,)
    if any(kind != 1 for kind in (formats if isinstance(formats, tuple) else (formats,))):
        raise ValueError("its pixels are signed or floating-point numbers; save it with 8 bits without a sign")


def _check_palette(image: Image.Image) -> None:
    image.load()
    n_colours = len(image.getpalette("RGB") or ()) // 3
    highest = int(np.asarray(image).max(initial=0))
    if highest >= n_colours:
        raise ValueError(f"a pixel has colour {highest} of a palette of {n_colours}; save it again")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # photographs whose EXIF is damaged are common, and nobody knows how they were turned
        return 1


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PPM"):
        return _eight_bits(image).convert(mode)
    if image.mode == "P":
        _check_palette(image)
    if image.mode not in (*_PLAIN, *_WITH_ALPHA):
        raise ValueError(
            f"its pixels are {image.mode}, which has no certain conversion to 8-bit colour; save it as RGB"
        )
    _check_samples(image)
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        raise ValueError("it has transparent pixels; put it on a background")
    return image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Returns a grey image of 16 bits with 8 bits: 0..65535 becomes 0..255, rounded."""
    if image.format not in ("PNG", "PPM", "TIFF", "JPEG2000"):
        raise ValueError(f"{image.format} with 16 bits has no range that is known; save it with 8 bits")
    tags = getattr(image, "tag_v2", {})
    if image.format == "TIFF" and any(tags.get(tag) != value for tag, value in _SCALABLE.items()):
        raise ValueError("its pixels are neither 8 bits nor 16 bits from black to white; save it with 8 bits")
    levels = np.asarray(image)
    if (levels == image.info.get("transparency", -1)).any():
        raise ValueError("it has transparent pixels; put it on a background")
    if levels.min(initial=0) < 0 or levels.max(initial=0) > 65535:
        raise ValueError("it has values outside 0..65535; save it with 8 bits")
    return Image.fromarray(_EIGHT_OF_SIXTEEN[levels])


def fit(image: Image.Image, size: int, how: str) -> Image.Image:
    """Does for one image what `inputs.to_input` does for a batch: scales it, or scales it and cuts the centre out."""
    if how == "squash":
        return image.resize((size, size), Image.Resampling.BILINEAR)
    scale = round(size * CROP_MARGIN) / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    if width * height > MAX_PIXELS:  # a long image at a large size: only the part that is kept is computed
        across, down = image.size[0] / width, image.size[1] / height
        box = (left * across, top * down, math.nextafter((left + size) * across, 0), (top + size) * down)
        return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
