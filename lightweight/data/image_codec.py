"""Codecs of stored images: raw pixels, lossless PNG, or JPEG of high quality, each of the prepared size."""

import io
import zlib
from typing import Literal

import numpy as np
from PIL import Image

Storage = Literal["pixels", "jpeg", "png"]
OPTIONS = {  # of PIL
    "png": {"compress_level": 1, "compress_type": zlib.Z_RLE},  # faster than the default, and smaller for photographs
    "jpeg": {"quality": 95, "subsampling": 0},  # colours are stored at the full size
}


def encode(image: np.ndarray, storage: Storage) -> bytes:
    """Encode an image uint8 (C, H, W) of one or three channels."""
    if storage == "pixels":
        return image.tobytes()
    content = io.BytesIO()
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    Image.fromarray(pixels).save(content, storage.upper(), **OPTIONS[storage])
    return content.getvalue()


def decode(content: memoryview, shape: tuple[int, int, int], storage: Storage) -> np.ndarray:
    """Decode what `encode` wrote to an image uint8 of `shape` (C, H, W). Raises ValueError for another shape."""
    if storage == "pixels":
        return np.frombuffer(content, np.uint8).reshape(shape)
    with Image.open(io.BytesIO(content), formats=[storage.upper()]) as image:
        if (len(image.getbands()), *image.size[::-1]) != shape:
            raise ValueError(f"an image of {image.mode} {image.size} among those of {shape}")
        pixels = np.asarray(image)
    return pixels[None] if shape[0] == 1 else pixels.transpose(2, 0, 1)
