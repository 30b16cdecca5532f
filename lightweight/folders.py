"""An image folder is a data set: `<class>/*.png|jpg`, or `train/`, `test/` and perhaps `val/` of such folders."""

from pathlib import Path

import numpy as np

from lightweight.errors import InputError, bad_param
from lightweight.images import read_image

SUFFIXES = {".png", ".jpg", ".jpeg"}


def read(path: Path, size: int, channels: int) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str]]:
    """Images uint8 (N, C, H, W) and labels int64 (N,) by split, and the class names in sorted order.

    Raises InputError that names the folder or image at fault.
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
    return {name: _read_split(root, classes, size, channels) for name, root in roots.items()}, classes


def _read_split(root: Path, classes: list[str], size: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    found = [folder.name for folder in _folders(root)]
    if found != classes:
        odd = ", ".join(sorted(set(found) ^ set(classes)))
        raise InputError(f"{root}: its class folders must be the same as in train, these are not in both: {odd}")
    images, labels = [], []
    for label, name in enumerate(classes):
        files = sorted(file for file in (root / name).iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise InputError(f"{root / name}: empty class folder: must hold at least one {', '.join(sorted(SUFFIXES))}")
        images += [read_image(file, size, channels) for file in files]
        labels += [label] * len(files)
    return np.stack(images), np.array(labels, dtype=np.int64)


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
