"""Image folders as data sets: `<class>/*.jpg` and the like, or `train/`, `test/` and perhaps `val/` of such."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lightweight.core.errors import InputError, bad_param
from lightweight.preparation.images import read_image
from lightweight.preparation.source import ReadImage

FINDING_COLUMNS = ("finding", "images", "paths")
SKIPPED = "skipped: "  # begins the findings about images that are not in the data set
MAX_PATH_CHARACTERS = 200  # of paths in a line of the log; the file has all
MAX_PATHS = 10  # in a finding about images that were changed; one about skipped images has all
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
SUFFIX_LIST = ", ".join(sorted(SUFFIXES))


class Findings:
    """Record which images of a folder were skipped or converted, and how."""

    def __init__(self) -> None:
        self.images_by_finding: dict[str, list[str]] = {}

    def add(self, finding: str, image: str) -> None:
        """Add an image, by its path in the folder, to a finding such as `resized to 32x32`."""
        name = image if image.isprintable() else repr(image)[1:-1]  # a file name is any bytes
        self.images_by_finding.setdefault(finding, []).append(name)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per finding in alphabetical order: the finding, the number of images, and their paths.

        The paths are all of those that were skipped, and the first ten of those that were changed.
        """
        rows = []
        for finding, names in sorted(self.images_by_finding.items()):
            shown = names if finding.startswith(SKIPPED) else names[:MAX_PATHS]
            more = "; ..." if len(shown) < len(names) else ""
            rows.append({"finding": finding, "images": len(names), "paths": "; ".join(shown) + more})
        return rows


def describe_findings(rows: list[dict[str, Any]]) -> list[str]:
    """Describe each row of `Findings` in a line for the log, with the first of its paths."""
    lines = []
    for row in rows:
        noun, paths = "image" if row["images"] == 1 else "images", row["paths"]
        shown = paths if len(paths) <= MAX_PATH_CHARACTERS else f"{paths[:MAX_PATH_CHARACTERS]}..."
        lines.append(f"prepare  {row['images']} {noun} {row['finding']}: {shown}")
    return lines


class FolderSource:
    """Read the images of a folder, whose files are listed by split, class and name."""

    def __init__(self, path: Path, size: int, channels: int) -> None:
        """List the files. Raises InputError that names the folder at fault."""
        self.path, self.shape, self.findings = path, (channels, size, size), Findings()
        self.roots = _find_splits(path)
        self.classes = _find_classes(self.roots["train"])
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

    def _list_images(self, folder: Path) -> list[str]:
        """List the images in a folder by their paths in the whole; others become findings. Raises InputError."""
        images = []
        for file in sorted(child for child in folder.iterdir() if not child.name.startswith(".")):
            relative = file.relative_to(self.path).as_posix()
            if file.suffix.lower() in SUFFIXES:
                images.append(relative)
            else:
                self.findings.add(f"{SKIPPED}not a {SUFFIX_LIST}", relative)
        if not images:
            raise no_image(folder)
        return images

    def read(self, numbers: range) -> Iterator[ReadImage]:
        """Yield the images of the numbers; a file that is no readable image is skipped."""
        for number in numbers:
            try:
                pixels, changes = read_image(self.path / self.files[number], self.shape[1], self.shape[0])
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
                raise no_image(self.roots[name] / self.classes[label])

    def finding_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the findings."""
        return self.findings.rows()


def no_image(folder: Path) -> InputError:
    """Make the error of a class folder from which nothing can be read."""
    return InputError(f"{folder}: no readable image: must hold at least one {SUFFIX_LIST}")


def _find_splits(path: Path) -> dict[str, Path]:
    """Find the folder of each split, or the one of all images as `train`. Raises InputError."""
    if not path.is_dir():
        raise bad_param("prepare.path", str(path), "no such folder")
    names = {child.name for child in _list_folders(path)}
    splits = [name for name in ("train", "val", "test") if name in names]
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
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
