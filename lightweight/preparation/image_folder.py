"""Image folders as data sets: `<class>/*.jpg` and the like, or `train/`, `test/` and perhaps `val/` of such."""

from pathlib import Path
from typing import Any

import numpy as np

from lightweight.core.errors import InputError, bad_param
from lightweight.preparation.images import LabelledImages, read_image

FINDING_COLUMNS = ("finding", "images", "paths")
SKIPPED = "skipped: "  # begins the findings about images that are not in the data set
MAX_PATHS = 10  # in a finding about images that were changed; one about skipped images has all
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


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


def read_image_folder(path: Path, size: int, channels: int) -> tuple[dict[str, LabelledImages], list[str], Findings]:
    """Read images uint8 (N, C, H, W) and labels int64 (N,) by split, the sorted class names, and the findings.

    A file that is no readable image is skipped. Raises InputError that names the folder at fault.
    """
    if not path.is_dir():
        raise bad_param("prepare.path", str(path), "no such folder")
    names = {child.name for child in _list_folders(path)}
    splits = [name for name in ("train", "val", "test") if name in names]
    if splits and not {"train", "test"} <= names:
        raise InputError(f"{path}: has {' and '.join(splits)} but a split folder needs both train and test")
    roots: dict[str, Path] = {name: path / name for name in splits} or {"train": path}
    classes = [folder.name for folder in _list_folders(roots["train"])]
    if len(classes) < 2:
        raise InputError(f"{roots['train']}: must hold at least two class folders, found {len(classes)}")
    unprintable = [name for name in classes if not name.isprintable()]
    if unprintable:
        raise InputError(f"{roots['train']}: the name of a class must be printable text: {unprintable[0]!r}")
    findings = Findings()
    parts = {name: _read_split(root, path, classes, size, channels, findings) for name, root in roots.items()}
    return parts, classes, findings


def _read_split(
    root: Path, top: Path, classes: list[str], size: int, channels: int, findings: Findings
) -> LabelledImages:
    """Read the class folders in `root`; paths in findings are relative to `top`. Raises InputError."""
    found = [folder.name for folder in _list_folders(root)]
    if found != classes:
        differing = ", ".join(sorted(set(found) ^ set(classes)))
        rule = "its class folders must be the same as in train, these are not in both"
        raise InputError(f"{root}: {rule}: {differing}")
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        before = len(images)
        for file in sorted(child for child in (root / name).iterdir() if not child.name.startswith(".")):
            relative = file.relative_to(top).as_posix()
            if file.suffix.lower() not in SUFFIXES:
                findings.add(f"{SKIPPED}not a {', '.join(sorted(SUFFIXES))}", relative)
                continue
            try:
                pixels, changes = read_image(file, size, channels)
            except InputError as error:
                findings.add(f"{SKIPPED}{error}", relative)
                continue
            images.append(pixels)
            for change in changes:
                findings.add(change, relative)
        if len(images) == before:
            raise InputError(f"{root / name}: no readable image: must hold at least one {', '.join(sorted(SUFFIXES))}")
        labels += [label] * (len(images) - before)
    return np.stack(images), np.array(labels, dtype=np.int64)


def _list_folders(path: Path) -> list[Path]:
    """List the folders in `path` by name, without hidden ones."""
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
