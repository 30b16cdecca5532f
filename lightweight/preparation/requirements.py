"""What a preparation will take, told before it begins: disk and memory, by the number and the size of the images."""

import math
import shutil
from pathlib import Path

import numpy as np

from lightweight.core.errors import InputError
from lightweight.data.image_codec import Storage, encode
from lightweight.data.loader import count_workers
from lightweight.preparation.packing import LIMITS
from lightweight.preparation.reading import CHUNK_BYTES
from lightweight.preparation.source import Source

SAMPLE = 32  # images that are encoded to learn how large they become
PROCESS_BYTES = 250_000_000  # of memory that a process takes without images, PyTorch included
WORKER_BYTES = 50_000_000 + 3 * CHUNK_BYTES  # that each process takes which reads images


def check_requirements(source: Source, storage: Storage, folder: Path) -> str:
    """Describe in a line how much disk and memory it takes to pack a source into `folder`.

    Raises InputError if the disk has less.
    """
    images, (_, height, width) = len(source.labels), source.shape
    pixels = images * math.prod(source.shape)
    disk = pixels if storage == "pixels" else _estimate_encoded(source, storage)
    memory = PROCESS_BYTES + count_workers() * WORKER_BYTES
    if storage == "pixels" and pixels <= LIMITS.one_file_bytes:
        disk, memory = 2 * pixels, memory + 3 * pixels
    packed = sum(file.stat().st_size for file in folder.iterdir())
    free = shutil.disk_usage(folder).free + packed
    if disk > free:
        rule = f"{_size(disk)} are needed for {images:,} images, {_size(free)} are free"
        raise InputError(f"{folder.parent}: {rule}; LIGHTWEIGHT_WORK names another folder")
    return f"prepare  {images:,} images to {width}x{height}: {_size(disk)} on disk, about {_size(memory)} of memory"


def _estimate_encoded(source: Source, storage: Storage) -> int:
    """Estimate the bytes of all images by those of a sample."""
    images = len(source.labels)
    numbers = sorted({int(number) for number in np.linspace(0, images - 1, SAMPLE)})
    read = [image.pixels for number in numbers for image in source.read(range(number, number + 1))]
    sizes = [len(encode(pixels, storage)) for pixels in read if pixels is not None]
    return images * sum(sizes) // max(1, len(sizes))


def _size(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e8 else f"{number / 1e6:,.1f} MB"
