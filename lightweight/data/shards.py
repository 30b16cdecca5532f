"""Shards: files of at most 1 GiB that hold the images of a large data set, and the index that describes them.

Nothing of a shard is in memory but what is read of it. Every image has a checksum, so that one that was altered is
found when it is read; an index belongs to one data set by its own checksum.
"""

import hashlib
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError, safe_open

from lightweight.core.errors import InputError, one_line
from lightweight.core.files import FORMAT_VERSION, check_format, read_bytes, write_text
from lightweight.data.image_codec import Storage, decode

INDEX = "index.json"
TENSOR = "images"  # of a shard: uint8 (bytes,), the encoded images one after the other
MEND = "`dvc checkout` brings it back, or `dvc repro` makes it anew"


class Shard(BaseModel, frozen=True):
    """Describe a shard: the name of its file, how many images it holds, its size in bytes and its checksum."""

    name: str = Field(pattern=r"^\d+\.safetensors$")
    images: int = Field(ge=0)
    size_bytes: int
    sha256: str


class Index(BaseModel):
    """Describe all shards of a data set, and how its images of `shape` (C, H, W) are stored in them."""

    format: int = FORMAT_VERSION
    storage: Storage
    shape: tuple[int, int, int]
    shards: list[Shard]


@dataclass(frozen=True)
class Shards:
    """Read images uint8 of `shape` (C, H, W) by their place; `sizes` and `checksums` (CRC-32) int64 (images,)."""

    folder: Path
    files: tuple[Shard, ...]
    storage: Storage
    shape: tuple[int, int, int]
    sizes: np.ndarray
    checksums: np.ndarray

    def read(self, place: int) -> np.ndarray:
        """Read an image. Raises InputError that names a shard in which it was altered."""
        number = int(np.searchsorted(self._last_places, place, side="right"))
        start, size = self._starts[place] - self._starts[self._first_places[number]], self.sizes[place]
        content = self._contents(number)[start : start + size]
        try:
            if zlib.crc32(content) == self.checksums[place]:
                return decode(content, self.shape, self.storage)
        except (ValueError, OSError):  # of PIL
            pass
        path = self.folder / self.files[number].name
        raise InputError(f"{path}: damaged: image {place} is not the one that was prepared; {MEND}")

    @cached_property
    def _last_places(self) -> np.ndarray:
        return np.cumsum([file.images for file in self.files])

    @cached_property
    def _first_places(self) -> np.ndarray:
        return np.concatenate([[0], self._last_places])

    @cached_property
    def _starts(self) -> np.ndarray:
        """Compute where each image begins, as if all shards were one."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    @cached_property
    def _opened(self) -> dict[int, memoryview]:
        return {}

    def _contents(self, number: int) -> memoryview:
        """Map a shard into memory when it is first read. Raises InputError."""
        if number not in self._opened:
            path = self.folder / self.files[number].name
            try:
                with safe_open(path, "pt") as file:
                    content = file.get_tensor(TENSOR).numpy().data
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path}: damaged or not a shard: {one_line(error)}; {MEND}") from None
            self._opened[number] = content
        return self._opened[number]


def write_index(folder: Path, index: Index) -> str:
    """Write the index of the shards in a folder, and return its checksum; equal shards have equal indices."""
    text = index.model_dump_json(indent=2) + "\n"
    write_text(folder / INDEX, text)
    return hashlib.sha256(text.encode()).hexdigest()


def open_shards(folder: Path, checksum: str, sizes: np.ndarray, checksums: np.ndarray) -> Shards:
    """Open the shards of a folder whose index has the checksum; for the arrays see `Shards`.

    Raises InputError that names an index of another data set, and a shard that is missing or of another size.
    """
    path = folder / INDEX
    content = read_bytes(path)
    if hashlib.sha256(content).hexdigest() != checksum:
        raise InputError(f"{path}: the index of another data set than {folder}.safetensors; {MEND}")
    try:
        index = Index.model_validate_json(content)
    except ValidationError as error:
        raise InputError(f"{path}: not an index of shards: {one_line(error)}") from None
    check_format(path, index.format)
    for file in index.shards:
        shard = folder / file.name
        size = shard.stat().st_size if shard.exists() else None
        if size != file.size_bytes:
            found = "no such file" if size is None else f"has {size:,} bytes, must have {file.size_bytes:,}"
            raise InputError(f"{shard}: {found}; {MEND}")
    images = sum(file.images for file in index.shards)
    for name, values in (("sizes", sizes), ("checksums", checksums)):
        if values.dtype != np.int64 or values.shape != (images,) or (values < 0).any():
            raise InputError(f"{folder}.safetensors: {name} must be int64 ({images},), not negative")
    return Shards(folder, tuple(index.shards), index.storage, index.shape, sizes, checksums)
