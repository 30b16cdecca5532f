"""Conversion of single images to uint8 (C, H, W) of the wanted size, from the centre of the image."""

import re
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageOps

from lightweight.core.errors import InputError
from lightweight.data.resizing import FIT, Resizing

LabelledImages = tuple[np.ndarray, np.ndarray]  # uint8 images and int64 labels (N,)

MODES = {1: "L", 3: "RGB"}  # of PIL, by channels
FORMATS = ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"]  # of PIL, which would start a program for others
MAX_PIXELS = 89_478_485  # where PIL begins to warn: a quarter of a gigabyte in colour
MAX_BYTES = 8 * MAX_PIXELS  # what 16-bit RGBA takes without compression
DRAFT = 2  # times the wanted size, or more, that a JPEG is decoded to, before it is resized
MAX_SCANS = 500  # of a JPEG, whose every scan goes over all pixels; a progressive one has ten
READS_HEIF = find_spec("pillow_heif") is not None  # an optional package, for the photographs of phones

if READS_HEIF:
    import_module("pillow_heif").register_heif_opener()
    FORMATS.append("HEIF")


def fit(image: Image.Image, size: int, channels: int, resizing: Resizing = FIT) -> np.ndarray:
    """Crop and resize an image to uint8 (channels, size, size)."""
    if image.mode.startswith("I;16"):  # which PIL would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    pixels = np.asarray(resizing.apply(image, size), dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def composite(image: Image.Image) -> Image.Image:
    """Composite an image on white; returns the image itself if none of its pixels is transparent."""
    if not image.has_transparency_data or image.mode.startswith("I;16"):
        return image
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = layer.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image
    flat = layer.convert("RGB")
    flat.paste((255, 255, 255), mask=ImageChops.invert(alpha))
    return flat


def fit_all(images: np.ndarray, size: int, channels: int, resizing: Resizing = FIT) -> np.ndarray:
    """Crop and resize uint8 (N, H, W) or (N, H, W, 3) to uint8 (N, channels, size, size), as `fit` does."""
    if resizing == FIT and images.shape[1:] == (size, size) and channels == 1:
        return images[:, None].copy()
    if resizing == FIT and images.shape[1:] == (size, size, 3) and channels == 3:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return np.stack([fit(Image.fromarray(image), size, channels, resizing) for image in images])


def read_image(path: Path, size: int, channels: int, resizing: Resizing = FIT) -> tuple[np.ndarray, list[str]]:
    """Read an image file, turned upright, composited on white and changed by `fit`; name each change in a phrase.

    Raises InputError when the file cannot be read, or is too large to be: the reason, without the path.
    """
    _check_file(path)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:  # of odd metadata
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"has {image.width} x {image.height} pixels, must have at most {MAX_PIXELS:,}")
            width, height = resizing.scale(*image.size)
            if width * height > MAX_PIXELS:
                raise InputError(f"would have {width} x {height} pixels, must have at most {MAX_PIXELS:,}")
            if image.format in ("JPEG", "MPO") and (scans := _count_scans(path)) > MAX_SCANS:
                raise InputError(f"has {scans} scans, must have at most {MAX_SCANS}")
            large = image.size != (size, size) or (width, height) != (size, size)
            if resizing == FIT:  # a JPEG is decoded at 1/2, 1/4 or 1/8, which is faster, but no pixel of torchvision's
                image.draft(None, (DRAFT * size, DRAFT * size))
            image.load()
            mode, turned = image.mode, image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
            changes = ["turned upright as its EXIF says"] if turned else []
            ImageOps.exif_transpose(image, in_place=True)
            flat = composite(image)
            if flat is not image:
                changes.append("composited on white")
            if mode != MODES[channels]:
                changes.append(f"converted from {mode} to {MODES[channels]}")
            if large:
                changes.append(f"resized to {size}x{size}")
            return fit(flat, size, channels, resizing), changes
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        reason = re.sub(r" \(\d+ bytes not processed\)", "", str(error).replace(repr(str(path)), ""))
        raise InputError(" ".join(reason.split()) or type(error).__name__) from None


def _check_file(path: Path) -> None:
    """Raise InputError for what should not even be opened: pipes and devices have no end."""
    if not path.is_file():
        raise InputError("is no regular file")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"has {path.stat().st_size:,} bytes, must have at most {MAX_BYTES:,}")


def _count_scans(path: Path) -> int:
    """Count the scans of a JPEG by the bytes that begin one; random bytes in metadata may look so, too."""
    with path.open("rb") as file:
        return sum(part.count(b"\xff\xda") for part in iter(lambda: file.read(2**20), b""))
