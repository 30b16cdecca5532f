"""Packing of images into shards: a journal says what is safely in them, so that an interrupted run goes on there."""

import json
import os
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lightweight.checkpointing.run_folder import checksum
from lightweight.data.shards import TENSOR, Shard
from lightweight.preparation.reading import Chunk

HEADER_BYTES = 512  # of a shard, before its images; the safetensors format allows a header to end in spaces
JOURNAL = "journal.jsonl"
COMMIT_SECONDS = 2.0  # the work that an interruption may lose


@dataclass(frozen=True)
class Limits:
    """Hold the bytes of pixels up to which a data set is one file, and those of a shard beyond."""

    one_file_bytes: int = 2**28
    shard_bytes: int = 2**30


LIMITS = Limits()
COLUMNS = ("numbers", "sizes", "checksums", "sums")  # of a record, of all its images


class Packed:
    """Hold what the journal knows: of each chunk all but its content, the shard it is in, and where it ends there."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def add(self, record: dict[str, Any]) -> None:
        """Add the record of a chunk."""
        self.records.append(record | {name: np.array(record[name], dtype=np.int64) for name in COLUMNS})

    @property
    def last(self) -> int:
        """Return the number of the first image that is not packed."""
        return self.records[-1]["last"] if self.records else 0

    def column(self, name: str) -> np.ndarray:
        """Join what all chunks say about their images: int64 (images,), or (images, 2 C) for sums."""
        parts = [record[name] for record in self.records if len(record["numbers"])]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def findings(self) -> Iterable[tuple[int, str]]:
        """Yield the number of each image that was changed or skipped, and how or why."""
        return ((number, finding) for record in self.records for number, finding in record["findings"])


class Packer:
    """Append chunks to shards in a folder: files of at most `shard_bytes`."""

    def __init__(self, folder: Path, shard_bytes: int, log: Callable[[str], object] = str) -> None:
        """Take up the journal in the folder, if there is one; begin anew if it does not fit the shards."""
        self.folder, self.shard_bytes = folder, shard_bytes
        self.packed = Packed()
        try:
            self.packed = _take_up(folder)
        except (OSError, ValueError, KeyError, TypeError):
            log(f"The interrupted run in {folder} is damaged: prepare begins anew")
            for file in folder.iterdir():
                file.unlink()
        self.pending: list[dict[str, Any]] = []
        self.committed = time.monotonic()
        self.file: BinaryIO | None = None

    def append(self, chunk: Chunk) -> None:
        """Append the images of a chunk to the newest shard, or begin another one. Raises OSError."""
        before = self.packed.records[-1] if self.packed.records else {"shard": 0, "end": HEADER_BYTES}
        shard, end, size = before["shard"], before["end"], len(chunk.content)
        if end > HEADER_BYTES and end + size > self.shard_bytes:
            self.commit()
            self.close()
            shard, end = shard + 1, HEADER_BYTES
        path = self.folder / _name(shard)
        try:
            if self.file is None:
                self.file = path.open("r+b" if end > HEADER_BYTES else "wb")
                self.file.truncate(end)
                self.file.seek(end)
            self.file.write(chunk.content)
        except OSError as error:
            raise OSError(error.errno, f"not written: {error.strerror}", str(path)) from error
        known = {name: value for name, value in vars(chunk).items() if name != "content"}
        record = known | {"shard": shard, "end": end + size}
        self.packed.add(record)
        self.pending.append(record)
        if time.monotonic() - self.committed > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Bring the images to disk, and then their records into the journal. Raises OSError."""
        path = self.folder / JOURNAL
        try:
            if self.file:
                self.file.flush()
                os.fsync(self.file.fileno())
            with path.open("ab") as journal:
                journal.write(b"".join(json.dumps(record).encode() + b"\n" for record in self.pending))
                journal.flush()
                os.fsync(journal.fileno())
        except OSError as error:
            raise OSError(error.errno, f"not written: {error.strerror}", str(path)) from error
        self.pending, self.committed = [], time.monotonic()

    def close(self) -> None:
        """Close the newest shard."""
        if self.file:
            self.file.close()
        self.file = None

    def finish(self) -> list[Shard]:
        """Write the headers of all shards, and describe them; equal images have equal shards."""
        self.commit()
        self.close()
        ends = {record["shard"]: record["end"] for record in self.packed.records}
        images = dict.fromkeys(ends, 0)
        for record in self.packed.records:
            images[record["shard"]] += len(record["numbers"])
        shards = []
        for shard, end in ends.items():
            path = self.folder / _name(shard)
            _write_header(path, end - HEADER_BYTES)
            shards.append(Shard(name=path.name, images=images[shard], size_bytes=end, sha256=checksum(path)))
        return shards


def _take_up(folder: Path) -> Packed:
    """Read the journal of a folder, cut off what the newest shard has beyond it, and check every image.

    Raises ValueError, KeyError, TypeError or OSError where journal and shards do not fit.
    """
    packed = Packed()
    for record in _read_journal(folder / JOURNAL):
        packed.add(record)
    place, shard = HEADER_BYTES, 0
    for record in packed.records:
        if record["shard"] != shard:
            place, shard = HEADER_BYTES, record["shard"]
        with (folder / _name(shard)).open("rb") as file:
            file.seek(place)
            content = memoryview(file.read(record["end"] - place))
        ends = np.cumsum(record["sizes"])
        if place + ends[-1:].sum() != record["end"] or len(content) != ends[-1:].sum():
            raise ValueError("a shard is too short")
        for first, last, expected in zip(ends - record["sizes"], ends, record["checksums"], strict=True):
            if zlib.crc32(content[first:last]) != expected:
                raise ValueError("an image was altered")
        place = record["end"]
    if packed.records and (folder / _name(shard)).stat().st_size > place:
        os.truncate(folder / _name(shard), place)
    return packed


def _read_journal(path: Path) -> list[dict[str, Any]]:
    """Read the records of a journal, whose last line may be incomplete: what follows the last whole one is cut off."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    os.truncate(path, sum(len(line) + 1 for line in lines))
    return [json.loads(line) for line in lines]


def _write_header(path: Path, size: int) -> None:
    """Write the header of a safetensors file of one tensor of bytes, unless it stands there already."""
    length = HEADER_BYTES - 8
    text = json.dumps({TENSOR: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    header = length.to_bytes(8, "little") + text.ljust(length)
    with path.open("rb") as file:
        if file.read(HEADER_BYTES) == header:  # the file may already be one of DVC's cache
            return
    with path.open("r+b") as file:
        file.write(header)
        os.fsync(file.fileno())


def _name(shard: int) -> str:
    return f"{shard:04}.safetensors"
