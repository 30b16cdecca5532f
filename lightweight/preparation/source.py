"""Where images come from: a source knows the images of every split by their number, and reads them one by one."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lightweight.data.resizing import FIT, Resizing
from lightweight.preparation.images import LabelledImages, fit_all


@dataclass(frozen=True)
class ReadImage:
    """Hold an image uint8 (C, H, W), or None for a file that is no image, and what was found: a change, or why."""

    pixels: np.ndarray | None
    findings: tuple[str, ...] = ()


class Source(Protocol):
    """Describe images by number: `labels` int64 (N,), the numbers of each split, and the shape (C, H, W) they get."""

    classes: tuple[str, ...]
    labels: np.ndarray
    splits: dict[str, range]
    shape: tuple[int, int, int]

    def read(self, numbers: range) -> Iterator[ReadImage]: ...
    def identity(self) -> str: ...
    def add_findings(self, findings: Iterable[tuple[int, str]]) -> None: ...
    def check_readable(self, numbers: np.ndarray) -> None: ...
    def finding_rows(self) -> list[dict[str, Any]]: ...


class ArraySource:
    """Read the images of a published data set, which are in memory as arrays by split."""

    def __init__(
        self, parts: dict[str, LabelledImages], classes: list[str], size: int, channels: int, resizing: Resizing = FIT
    ) -> None:
        self.parts, self.classes, self.shape, self.resizing = parts, tuple(classes), (channels, size, size), resizing
        self.labels = np.concatenate([labels for _, labels in parts.values()])
        self.splits: dict[str, range] = {}
        start = 0
        for name, (_, labels) in parts.items():
            self.splits[name] = range(start, start + len(labels))
            start += len(labels)

    def read(self, numbers: range) -> Iterator[ReadImage]:
        """Yield the images of the numbers, cropped and resized."""
        for name, inside in self.splits.items():
            first, last = max(numbers.start, inside.start), min(numbers.stop, inside.stop)
            if first < last:
                images = self.parts[name][0][first - inside.start : last - inside.start]
                yield from map(ReadImage, fit_all(images, self.shape[1], self.shape[0], self.resizing))

    def identity(self) -> str:
        """Return a digest of all images."""
        digest = hashlib.sha256()
        for images, labels in self.parts.values():
            digest.update(np.ascontiguousarray(images).data)
            digest.update(labels.data)
        return digest.hexdigest()

    def add_findings(self, findings: Iterable[tuple[int, str]]) -> None:
        """Ignore findings: the images of a published data set are as they were published."""

    def check_readable(self, numbers: np.ndarray) -> None:
        """Accept the numbers of the images that were read: all."""

    def finding_rows(self) -> list[dict[str, Any]]:
        """Return no rows."""
        return []
