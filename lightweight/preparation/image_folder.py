"""An image folder is a data set: `<class>/*.jpg` and the like, or `train/`, `test/` and perhaps `val/` of such."""

from pathlib import Path
from typing import Any

import numpy as np

from lightweight.core.errors import InputError, bad_param
from lightweight.preparation.images import read_image

COLUMNS = ("finding", "images", "paths")
SKIPPED, SHOWN = "skipped: ", 10
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class Findings:
    """What was done to the images of a folder, and to which: nothing is skipped or converted in silence."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, what: str, image: str) -> None:
        shown = image if image.isprintable() else repr(image)[1:-1]  # a file name is any bytes
        self.found.setdefault(what, []).append(shown)

    def rows(self) -> list[dict[str, Any]]:
        """A row per finding, in alphabetical order: what, the number of images, and their paths in the folder.

        All paths of what was skipped, the first ones of what was changed.
        """
        rows = []
        for what, names in sorted(self.found.items()):
            shown = names if what.startswith(SKIPPED) else names[:SHOWN]
            paths = "; ".join(shown) + ("; ..." if len(shown) < len(names) else "")
            rows.append({"finding": what, "images": len(names), "paths": paths})
        return rows


def read(path: Path, size: int, channels: int) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str], Findings]:
    """Images uint8 (N, C, H, W) and labels int64 (N,) by split, the class names in sorted order, and what was found.

    A file that is no readable image is skipped. Raises InputError that names the folder at fault.
    """
    if not path.is_dir():
        raise bad_param("prepare.path", str(path), "no such folder")
    names = {child.name for child in _folders(path)}
    splits = [name for name in ("train", "val", "test") if name in names]
    if splits and not {"train", "test"} <= names:
        raise InputError(f"{path}: has {' and '.join(splits)} but a split folder needs both train and test")
    roots = {name: path / name for name in splits} or {"train": path}
    classes = [folder.name for folder in _folders(roots["train"])]
    if len(classes) < 2:
        raise InputError(f"{roots['train']}: must hold at least two class folders, found {len(classes)}")
    odd = [name for name in classes if not name.isprintable()]
    if odd:
        raise InputError(f"{roots['train']}: the name of a class must be printable text: {odd[0]!r}")
    findings = Findings()
    parts = {name: _read_split(root, path, classes, size, channels, findings) for name, root in roots.items()}
    return parts, classes, findings


def _read_split(
    root: Path, top: Path, classes: list[str], size: int, channels: int, findings: Findings
) -> tuple[np.ndarray, np.ndarray]:
    found = [folder.name for folder in _folders(root)]
    if found != classes:
        odd = ", ".join(sorted(set(found) ^ set(classes)))
        raise InputError(f"{root}: its class folders must be the same as in train, these are not in both: {odd}")
    images, labels = [], []
    for label, name in enumerate(classes):
        before = len(images)
        for file in sorted(child for child in (root / name).iterdir() if not child.name.startswith(".")):
            relative = file.relative_to(top).as_posix()
            if file.suffix.lower() not in SUFFIXES:
                findings.add(f"{SKIPPED}not a {', '.join(sorted(SUFFIXES))}", relative)
                continue
            try:
                pixels, done = read_image(file, size, channels)
            except InputError as error:
                findings.add(f"{SKIPPED}{error}", relative)
                continue
            images.append(pixels)
            for what in done:
                findings.add(what, relative)
        if len(images) == before:
            raise InputError(f"{root / name}: no readable image: must hold at least one {', '.join(sorted(SUFFIXES))}")
        labels += [label] * (len(images) - before)
    return np.stack(images), np.array(labels, dtype=np.int64)


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
