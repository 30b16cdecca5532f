"""Published data sets: bundled with scikit-learn, found under the raw folder, or downloaded into it by torchvision.

torchvision checks the archives that it downloads. Unpacked files that lie there already are checked here.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lightweight.core.errors import InputError, bad_param, one_line
from lightweight.core.torchvision_compat import torchvision
from lightweight.preparation.images import LabelledImages

TORCHVISION_NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}
PUBLISHED_IMAGES = {"digits": 1_797, "mnist": 70_000, "fashion_mnist": 70_000, "cifar10": 60_000}  # of 10 classes each
UNPACKED_MD5 = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
MAX_UNPACKED_BYTES = 16 + 60_000 * 28 * 28  # of the training images of both


def read_published(name: str, raw: Path) -> tuple[dict[str, LabelledImages], list[str]]:
    """Read uint8 images (N, H, W) or (N, H, W, 3) and int64 labels (N,) by split, and the class names.

    `raw` is the folder of downloads. Raises InputError that names a file other than the published one, or the files to
    put in place when the download fails.
    """
    return _read_digits() if name == "digits" else _read_torchvision(name, raw)


def _read_digits() -> tuple[dict[str, LabelledImages], list[str]]:
    """Read 1,797 digits, 8x8 pixels of 17 grey levels (Alpaydin and Kaynak 1998), bundled with scikit-learn."""
    from sklearn.datasets import load_digits  # only this data set pays for the import

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return {"train": (images, digits.target.astype(np.int64))}, [str(name) for name in digits.target_names]


def _read_torchvision(name: str, raw: Path) -> tuple[dict[str, LabelledImages], list[str]]:
    """Read both splits through torchvision, which downloads what is missing. Raises InputError."""
    constructor = getattr(torchvision("datasets"), TORCHVISION_NAMES[name])
    if name in UNPACKED_MD5:
        _check_unpacked(raw / TORCHVISION_NAMES[name], UNPACKED_MD5[name])
    try:
        datasets = {split: constructor(raw, train=split == "train", download=True) for split in ("train", "test")}
    except (OSError, RuntimeError, EOFError) as error:
        raise bad_param("prepare.dataset", name, _explain_download(name, raw, constructor, error)) from None
    parts = {
        split: (np.asarray(dataset.data), np.asarray(dataset.targets, dtype=np.int64))
        for split, dataset in datasets.items()
    }
    return parts, [label.split(" - ")[0] for label in datasets["train"].classes]


def _check_unpacked(folder: Path, checksums: dict[str, str]) -> None:
    """Raise InputError for an unpacked file of MNIST or FashionMNIST that is not the published one.

    Old versions of torchvision left pickles in `processed`, which the present one would read unchecked.
    """
    check_integrity = torchvision("datasets.utils").check_integrity
    for name, checksum in checksums.items():
        path = folder / "raw" / name
        if path.exists() and (path.stat().st_size > MAX_UNPACKED_BYTES or not check_integrity(path, checksum)):
            raise InputError(f"{path}: damaged: its MD5 is not {checksum}; delete it to download it again")
    if (folder / "processed").exists():
        raise InputError(f"{folder / 'processed'}: of an old version of torchvision, and not checked; delete it")


def _explain_download(name: str, raw: Path, constructor: Any, error: Exception) -> str:
    """Explain a failed download, and which files to put where instead."""
    if name == "cifar10":
        put = f"{constructor.filename} (or {constructor.base_folder}/ from it) in {raw}"
    else:
        put = f"{', '.join(file for file, _ in constructor.resources)} in {raw / TORCHVISION_NAMES[name] / 'raw'}"
    return f"not found and not downloaded ({one_line(error)}); put {put}, or use digits"
