"""One image becomes uint8 (C, H, W) of the wanted size, cropped to a square around its centre."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lightweight.errors import InputError


def fit(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """uint8 (channels, size, size): bilinear, aspect ratio kept."""
    if image.mode.startswith("I;16"):  # which PIL would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def fit_all(images: np.ndarray, size: int, channels: int) -> np.ndarray:
    """uint8 (N, H, W) or (N, H, W, 3) to uint8 (N, channels, size, size)."""
    if images.shape[1:] == (size, size) and channels == 1:
        return images[:, None].copy()
    if images.shape[1:] == (size, size, 3) and channels == 3:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return np.stack([fit(Image.fromarray(image), size, channels) for image in images])


def read_image(path: Path, size: int, channels: int) -> np.ndarray:
    """The picture at `path` by `fit`, turned upright. Raises InputError that names it when it cannot be read."""
    try:
        with Image.open(path) as image:
            return fit(ImageOps.exif_transpose(image), size, channels)
    except (OSError, ValueError, TypeError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image: {error}") from None
