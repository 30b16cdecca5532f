"""Published data sets come with their checksums: bundled, found under the raw folder, or downloaded into it."""

import hashlib
import math
import struct
from pathlib import Path

import numpy as np

from lightweight.core.errors import InputError, bad_param
from lightweight.core.torchvision_compat import torchvision

MNIST_MD5 = {  # of the unpacked files; torchvision checks the archives only
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
CLASSES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}  # in torchvision.datasets
LARGEST = 16 + 60_000 * 28 * 28  # bytes, of the published training images
CLASS_COUNT = 10

Parts = dict[str, tuple[np.ndarray, np.ndarray]]


def read(name: str, raw: Path) -> tuple[Parts, list[str]]:
    """uint8 images (N, H, W) or (N, H, W, 3) and int64 labels (N,) by split, and the class names.

    Raises InputError that names a damaged file, or the files to put in place when the download fails.
    """
    return _digits() if name == "digits" else _torchvision(name, raw)


def _digits() -> tuple[Parts, list[str]]:
    """1,797 handwritten digits, 8x8 pixels of 17 grey levels (Alpaydin and Kaynak 1998), bundled with scikit-learn."""
    from sklearn.datasets import load_digits  # only this data set pays for the import

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return {"train": (images, digits.target.astype(np.int64))}, [str(name) for name in digits.target_names]


def _torchvision(name: str, raw: Path) -> tuple[Parts, list[str]]:
    kind = getattr(torchvision("datasets"), CLASSES[name])
    if name != "cifar10":  # whose files torchvision checks itself
        _check_idx(raw / kind.__name__ / "raw", MNIST_MD5 if name == "mnist" else dict.fromkeys(MNIST_MD5))
    try:
        train, test = (kind(raw, train=train, download=True) for train in (True, False))
    except (OSError, RuntimeError, EOFError) as error:
        raise bad_param("prepare.dataset", name, _what_to_do(name, raw, kind, error)) from None
    parts = {
        split: (np.asarray(found.data), np.asarray(found.targets, dtype=np.int64))
        for split, found in (("train", train), ("test", test))
    }
    return parts, [label.split(" - ")[0] for label in train.classes]


def _check_idx(folder: Path, checksums: dict[str, str | None]) -> None:
    """Every IDX file found is as long as its header says and, where its MD5 is known, the very one published.

    Nothing but the header is read before the length is known to be right.
    """
    lengths = {}
    for name, checksum in checksums.items():
        path = folder / name
        if path.exists():
            try:
                lengths[name] = _check_file(path, 3 if "images" in name else 1, checksum)
            except ValueError as error:
                raise InputError(f"{path}: damaged: {error}; delete it to download it again") from None
    for name, number in lengths.items():
        labels = lengths.get(name.replace("images-idx3", "labels-idx1"), number)
        if number != labels:
            raise InputError(f"{folder / name}: damaged: {number} images for {labels} labels; delete both")


def _check_file(path: Path, dimensions: int, checksum: str | None) -> int:
    """The number of images or labels in an IDX file. Raises ValueError with the fault."""
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("not a file")
    if size > LARGEST:
        raise ValueError(f"has {size:,} bytes, no published file more than {LARGEST:,}")
    with path.open("rb") as file:
        header = file.read(4 + 4 * dimensions)
        if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
            raise ValueError("not an IDX file of bytes")
        shape = struct.unpack(f">{dimensions}I", header[4:])
        if size - len(header) != math.prod(shape) or 0 in shape:
            raise ValueError(f"holds {size - len(header)} bytes of {shape}")
        labels = max(file.read()) if dimensions == 1 else 0
        if labels >= CLASS_COUNT:
            raise ValueError(f"holds the label {labels}, must be less than {CLASS_COUNT}")
        file.seek(0)
        if checksum and hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != checksum:
            raise ValueError(f"its MD5 is not {checksum}")
    return shape[0]


def _what_to_do(name: str, raw: Path, kind: type, error: Exception) -> str:
    if name == "cifar10":
        put = f"{kind.filename} (or {kind.base_folder}/ from it) in {raw}"
    else:
        put = f"{', '.join(file for file, _ in kind.resources)} in {raw / kind.__name__ / 'raw'}"
    reason = " ".join(str(error).split())
    return f"not found and not downloaded ({reason}); put {put}, or use digits"
