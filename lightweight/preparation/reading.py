"""Reading of images on all cores: chunks of consecutive images, encoded for storage, in their order."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from lightweight.core.errors import InputError
from lightweight.data.image_codec import Storage, encode
from lightweight.data.loader import load_in_order
from lightweight.preparation.source import Source

CHUNK_BYTES = 2**22  # of pixels
MAX_CHUNK = 64  # images, which may take a second or two to read


@dataclass(frozen=True)
class Chunk:
    """Hold the readable images up to number `last`, encoded one after the other, and what was found.

    `numbers`, `sizes` in bytes and `checksums` (CRC-32) are of these images; `sums` has the sums of the pixels of each
    channel, and then those of their squares.
    """

    last: int
    numbers: list[int]
    sizes: list[int]
    checksums: list[int]
    sums: list[list[int]]
    findings: list[tuple[int, str]]
    content: bytes


def read_chunks(source: Source, storage: Storage, first: int) -> Iterator[Chunk]:
    """Yield chunks from image `first` on, at which one begins. The number of processes that read enters no result."""
    size = images_per_chunk(source.shape)
    ranges = [range(start, min(start + size, len(source.labels))) for start in range(first, len(source.labels), size)]
    return load_in_order(_Chunks(source, storage, ranges), len(ranges))


def images_per_chunk(shape: tuple[int, int, int]) -> int:
    """Return how many images of a shape (C, H, W) make a chunk."""
    return max(1, min(MAX_CHUNK, CHUNK_BYTES // math.prod(shape)))


@dataclass(frozen=True)
class _Chunks(Dataset[Chunk | InputError]):
    """Read one chunk by its number, for a DataLoader."""

    source: Source
    storage: Storage
    ranges: list[range]

    def __getitem__(self, number: int) -> Chunk | InputError:
        numbers = self.ranges[number]
        chunk = Chunk(numbers.stop, [], [], [], [], [], b"")
        contents = []
        for number, image in zip(numbers, self.source.read(numbers), strict=True):
            chunk.findings.extend((number, finding) for finding in image.findings)
            if image.pixels is not None:
                contents.append(encode(image.pixels, self.storage))
                chunk.numbers.append(number)
                chunk.sizes.append(len(contents[-1]))
                chunk.checksums.append(zlib.crc32(contents[-1]))
                chunk.sums.append(_sums(image.pixels))
        return Chunk(**vars(chunk) | {"content": b"".join(contents)})


def _sums(image: np.ndarray) -> list[int]:
    """Add the pixels of each channel of an image uint8 (C, H, W), and then their squares."""
    pixels = image.reshape(len(image), -1)
    squares = np.square(pixels, dtype=np.uint16)  # of 255 at most, which fit
    return [*pixels.sum(1, dtype=np.uint64).tolist(), *squares.sum(1, dtype=np.uint64).tolist()]
