"""Image folders as data sets: `<class>/*.jpg` and the like, or `train/`, `test/` and perhaps `val/` of such."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lightweight.core.errors import InputError, bad_param
from lightweight.data.resizing import FIT, Resizing
from lightweight.preparation.findings import SKIPPED, Findings
from lightweight.preparation.images import READS_HEIF, read_image
from lightweight.preparation.source import ReadImage

HEIF = {".heic", ".heif"}
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"} | (HEIF if READS_HEIF else set())
SUFFIX_LIST = ", ".join(sorted(SUFFIXES))
SPLITS = ("train", "val", "test")


class FolderSource:
    """Read the images of a folder, whose files are listed by split, class and name."""

    def __init__(self, path: Path, size: int, channels: int, resizing: Resizing = FIT) -> None:
        """List the files. Raises InputError that names the folder at fault."""
        self.path, self.shape, self.resizing, self.findings = path, (channels, size, size), resizing, Findings()
        self.roots = _find_splits(path)
        self.classes = _find_classes(self.roots["train"])
        self._add_strays()
        self.files: list[str] = []
        labels: list[int] = []
        self.splits: dict[str, range] = {}
        for name, root in self.roots.items():
            _check_classes(root, self.classes)
            start = len(self.files)
            for label, folder in enumerate(self.classes):
                files = self._list_images(root / folder)
                self.files += files
                labels += [label] * len(files)
            self.splits[name] = range(start, len(self.files))
        self.labels = np.array(labels, dtype=np.int64)

    def _add_strays(self) -> None:
        """Add findings about what lies beside the folders of classes and of splits."""
        if self.path not in self.roots.values():
            for name, folder in _list_visible(self.path):
                if name not in self.roots:
                    self.findings.add(f"{SKIPPED}{'a folder' if folder else 'a file'} beside train and test", name)
        for root in self.roots.values():
            for name, folder in _list_visible(root):
                if not folder:
                    stray = (root / name).relative_to(self.path).as_posix()
                    self.findings.add(f"{SKIPPED}a file beside the class folders", stray)

    def _list_images(self, folder: Path) -> list[str]:
        """List the images in a folder by their paths in the whole; others become findings. Raises InputError."""
        images = []
        prefix = folder.relative_to(self.path).as_posix()
        for name, nested in _list_visible(folder):
            suffix = Path(name).suffix.lower()
            if nested:
                reason = "a folder in a class folder; only images directly in the class folder are read"
            elif suffix in SUFFIXES:
                images.append(f"{prefix}/{name}")
                continue
            elif suffix in HEIF:
                reason = f"{suffix} is read where pillow-heif is installed: pip install pillow-heif"
            else:
                reason = f"{suffix or 'a file without a suffix'} is none of {SUFFIX_LIST}"
            self.findings.add(f"{SKIPPED}{reason}", f"{prefix}/{name}")
        if not images:
            raise self._no_image(folder)
        return images

    def read(self, numbers: range) -> Iterator[ReadImage]:
        """Yield the images of the numbers; a file that is no readable image is skipped."""
        for number in numbers:
            try:
                channels, size, _ = self.shape
                pixels, changes = read_image(self.path / self.files[number], size, channels, self.resizing)
                yield ReadImage(pixels, tuple(changes))
            except InputError as error:
                yield ReadImage(None, (f"{SKIPPED}{error}",))

    def identity(self) -> str:
        """Return a digest of the paths, sizes and times of all files, by which a run knows that it may go on."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for file in self.files:
            with suppress(OSError):  # of a link to nowhere, which is no image either
                status = (self.path / file).stat()
                digest.update(os.fsencode(f"{file} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n"))
        return digest.hexdigest()

    def add_findings(self, findings: Iterable[tuple[int, str]]) -> None:
        """Add what was found in images, by their number."""
        for number, finding in findings:
            self.findings.add(finding, self.files[number])

    def check_readable(self, numbers: np.ndarray) -> None:
        """Raise InputError for a class folder none of whose images is among the numbers of readable ones."""
        for name, part in self.splits.items():
            readable = self.labels[numbers[(numbers >= part.start) & (numbers < part.stop)]]
            for label in sorted(set(range(len(self.classes))) - set(readable.tolist())):
                raise self._no_image(self.roots[name] / self.classes[label])

    def _no_image(self, folder: Path) -> InputError:
        """Make the error of a class folder from which nothing can be read, with what was skipped in it."""
        prefix = f"{folder.relative_to(self.path).as_posix()}/"
        skipped = [
            f"; {finding}"
            for finding, names in sorted(self.findings.images_by_finding.items())
            if any(name.startswith(prefix) for name in names)
        ]
        return InputError(f"{folder}: no readable image: must hold at least one {SUFFIX_LIST}{''.join(skipped)}")

    def finding_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the findings."""
        return self.findings.rows()


def _find_splits(path: Path) -> dict[str, Path]:
    """Find the folder of each split, or the one of all images as `train`. Raises InputError."""
    if not path.is_dir():
        raise bad_param("prepare.path", str(path), "no such folder")
    names = {child.name for child in _list_folders(path)}
    splits = [name for name in SPLITS if name in names]
    if splits and not {"train", "test"} <= names:
        raise InputError(f"{path}: has {' and '.join(splits)} but a split folder needs both train and test")
    return {name: path / name for name in splits} or {"train": path}


def _find_classes(root: Path) -> tuple[str, ...]:
    """Return the sorted names of the class folders. Raises InputError for fewer than two, and for odd names."""
    classes = tuple(folder.name for folder in _list_folders(root))
    if len(classes) < 2:
        raise InputError(f"{root}: must hold at least two class folders, found {len(classes)}")
    unprintable = [name for name in classes if not name.isprintable()]
    if unprintable:
        raise InputError(f"{root}: the name of a class must be printable text: {unprintable[0]!r}")
    return classes


def _check_classes(root: Path, classes: tuple[str, ...]) -> None:
    """Raise InputError unless the class folders in `root` are those of the training split."""
    differing = {folder.name for folder in _list_folders(root)} ^ set(classes)
    if differing:
        rule = "its class folders must be the same as in train, these are not in both"
        raise InputError(f"{root}: {rule}: {', '.join(sorted(differing))}")


def _list_folders(path: Path) -> list[Path]:
    """List the folders in `path` by name, without hidden ones."""
    return [path / name for name, folder in _list_visible(path) if folder]


def _list_visible(path: Path) -> list[tuple[str, bool]]:
    """List what a folder holds, without hidden names, in their order: each name, and whether it is a folder."""
    with os.scandir(path) as entries:
        return sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
