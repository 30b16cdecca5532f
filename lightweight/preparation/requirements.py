"""What a preparation will take, told before it begins: disk and memory, by the number and the size of the images."""

import math
import shutil
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Requirements:
    """Hold what it takes to prepare images of a shape (C, H, W): bytes of disk and of memory."""

    images: int
    shape: tuple[int, int, int]
    disk: int
    memory: int

    def describe(self) -> str:
        """Describe images and needs in a phrase."""
        _, height, width = self.shape
        needs = f"{format_size(self.disk)} on disk, about {format_size(self.memory)} of memory"
        return f"{self.images:,} images to {width}x{height}: {needs}"


def estimate(source: Source, storage: Storage) -> Requirements:
    """Estimate what it takes to pack a source."""
    images = len(source.labels)
    packed = images * math.prod(source.shape) if storage == "pixels" else _estimate_encoded(source, storage)
    return require(images, source.shape, storage, packed)


def check_requirements(source: Source, storage: Storage, folder: Path) -> str:
    """Describe in a line how much disk and memory it takes to pack a source into `folder`.

    Raises InputError if the disk has less.
    """
    needed = estimate(source, storage)
    packed = sum(file.stat().st_size for file in folder.iterdir())
    free = shutil.disk_usage(folder).free + packed
    if needed.disk > free:
        rule = f"{format_size(needed.disk)} are needed for {needed.images:,} images, {format_size(free)} are free"
        raise InputError(f"{folder.parent}: {rule}; LIGHTWEIGHT_WORK names another folder")
    return f"prepare  {needed.describe()}"


def require(images: int, shape: tuple[int, int, int], storage: Storage, packed: int) -> Requirements:
    """Estimate disk and memory for images that take so many bytes when they are packed."""
    pixels, memory = images * math.prod(shape), PROCESS_BYTES + count_workers() * WORKER_BYTES
    if storage == "pixels" and pixels <= LIMITS.one_file_bytes:
        return Requirements(images, shape, 2 * packed, memory + 3 * pixels)
    return Requirements(images, shape, packed, memory)


def _estimate_encoded(source: Source, storage: Storage) -> int:
    """Estimate the bytes of all images by those of a sample."""
    images = len(source.labels)
    numbers = sorted({int(number) for number in np.linspace(0, images - 1, SAMPLE)})
    read = [image.pixels for number in numbers for image in source.read(range(number, number + 1))]
    sizes = [len(encode(pixels, storage)) for pixels in read if pixels is not None]
    return images * sum(sizes) // max(1, len(sizes))


def format_size(number: int) -> str:
    """Format a number of bytes."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e8 else f"{number / 1e6:,.1f} MB"
