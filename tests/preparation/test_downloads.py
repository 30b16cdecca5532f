import hashlib
import os
import pickle
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from lightweight.core.errors import InputError
from lightweight.core.torchvision_compat import torchvision
from lightweight.preparation import downloads as archives

FILES = "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz"
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 10


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def fail(*arguments, **options):
        raise URLError("no route to host")

    for module in (torchvision("datasets").mnist, torchvision("datasets").cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", fail)


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """The folder of the unpacked files of fashion_mnist: 20 training and 10 test images of noise."""
    return write_idx_files(tmp_path / "FashionMNIST" / "raw")


def write_idx_files(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, part in (("train", slice(20)), ("t10k", slice(20, 30))):
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx(IMAGES[part]))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(LABELS[part]))
    return folder


def refusal(name: str, raw: Path) -> str:
    with pytest.raises(InputError) as error:
        archives.read(name, raw)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_digits_are_1797_images_of_17_grey_levels_in_10_classes(tmp_path):
    parts, classes = archives.read("digits", tmp_path)
    images, labels = parts.pop("train")
    assert (parts, classes) == ({}, list("0123456789"))
    assert (images.shape, images.dtype, labels.dtype) == ((1797, 8, 8), np.uint8, np.int64)
    assert np.unique(images).tolist() == [round(level * 255 / 16) for level in range(17)]
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize(
    ("data", "first", "last"), [("mnist", "0", "9"), ("fashion_mnist", "T-shirt/top", "Ankle boot")]
)
def test_idx_files_are_read_as_they_are(tmp_path, monkeypatch, data, first, last):
    monkeypatch.setattr(archives, "MNIST_MD5", dict.fromkeys(archives.MNIST_MD5))
    write_idx_files(tmp_path / archives.CLASSES[data] / "raw")
    parts, classes = archives.read(data, tmp_path)
    assert list(parts) == ["train", "test"]
    assert classes[::9] == [first, last]
    for name, part in (("train", slice(20)), ("test", slice(20, 30))):
        images, labels = parts[name]
        assert np.array_equal(images, IMAGES[part])
        assert np.array_equal(labels, LABELS[part])
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)


def test_cifar10_images_have_their_channels_last(tmp_path, monkeypatch):
    kind = torchvision("datasets").CIFAR10
    pixels = np.repeat(np.array([10, 20, 30], dtype=np.uint8), 1024)
    batch = {"data": np.stack([pixels, pixels + 1]), "labels": [1, 0]}
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    checksums = {}
    for name, content in {"one": batch, "two": batch, "names": {"label_names": ["plane", "car"]}}.items():
        (folder / name).write_bytes(pickle.dumps(content))
        checksums[name] = hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(kind, "train_list", [["one", checksums["one"]]])
    monkeypatch.setattr(kind, "test_list", [["two", checksums["two"]]])
    monkeypatch.setattr(kind, "meta", {"filename": "names", "key": "label_names", "md5": checksums["names"]})
    parts, classes = archives.read("cifar10", tmp_path)
    assert classes == ["plane", "car"]
    for images, labels in parts.values():
        assert images.shape == (2, 32, 32, 3)
        assert (images == np.array([[10, 20, 30], [11, 21, 31]])[:, None, None]).all()
        assert labels.tolist() == [1, 0]
        assert labels.dtype == np.int64


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_a_failed_download_names_the_files_to_put_in_place(tmp_path, name):
    folder = tmp_path / archives.CLASSES[name] / "raw"
    found = refusal(name, tmp_path)
    assert found.startswith(f"params.yaml: prepare.dataset = {name!r}: not found and not downloaded (Error downloading")
    assert "no route to host" in found
    assert found.endswith(f"; put {FILES} in {folder}, or use digits")


def test_a_failed_download_of_cifar10_names_the_archive_to_put_in_place(tmp_path):
    reason = "not found and not downloaded (<urlopen error no route to host>)"
    put = f"put cifar-10-python.tar.gz (or cifar-10-batches-py/ from it) in {tmp_path}, or use digits"
    assert refusal("cifar10", tmp_path) == f"params.yaml: prepare.dataset = 'cifar10': {reason}; {put}"


@pytest.mark.parametrize("missing", archives.MNIST_MD5)
def test_one_missing_file_is_asked_for(fashion, tmp_path, missing):
    (fashion / missing).unlink()
    assert refusal("fashion_mnist", tmp_path).endswith(f"; put {FILES} in {fashion}, or use digits")


@pytest.mark.parametrize("name", archives.MNIST_MD5)
def test_an_mnist_file_other_than_the_published_one_is_named(tmp_path, name):
    path = tmp_path / "MNIST" / "raw" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(idx(IMAGES if "images" in name else LABELS))
    rule = f"its MD5 is not {archives.MNIST_MD5[name]}; delete it to download it again"
    assert refusal("mnist", tmp_path) == f"{path}: damaged: {rule}"


def test_one_flipped_bit_of_a_published_file_is_found(mnist_raw, tmp_path):
    name = "t10k-labels-idx1-ubyte"
    path = tmp_path / "MNIST" / "raw" / name
    path.parent.mkdir(parents=True)
    content = bytearray((mnist_raw / "MNIST" / "raw" / name).read_bytes())
    path.write_bytes(content)
    assert "not downloaded" in refusal("mnist", tmp_path)  # the file is whole, the other three are missing
    content[5000] ^= 1
    path.write_bytes(content)
    assert refusal("mnist", tmp_path).startswith(f"{path}: damaged: its MD5 is not {archives.MNIST_MD5[name]}")


@pytest.mark.parametrize("data", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize(
    ("part", "content", "fault"),
    [
        ("images-idx3", b"", "not an IDX file of bytes"),
        ("images-idx3", idx(IMAGES)[:10], "not an IDX file of bytes"),
        ("images-idx3", b"\x1f\x8b\x08" + bytes(20), "not an IDX file of bytes"),
        ("images-idx3", b"\0\0\x0d" + idx(IMAGES)[3:], "not an IDX file of bytes"),
        ("images-idx3", idx(IMAGES)[:-1], "holds 23519 bytes of (30, 28, 28)"),
        ("images-idx3", idx(IMAGES) + b"\0", "holds 23521 bytes of (30, 28, 28)"),
        (
            "images-idx3",
            struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 4),
            "holds 0 bytes of (2147483648, 2147483648, 4)",
        ),
        ("labels-idx1", idx(LABELS)[:-1], "holds 29 bytes of (30,)"),
        ("images-idx3", idx(IMAGES[:0]), "holds 0 bytes of (0, 28, 28)"),
        ("images-idx3", idx(IMAGES[:, :0]), "holds 0 bytes of (30, 0, 28)"),
        ("labels-idx1", idx(LABELS[:0]), "holds 0 bytes of (0,)"),
        ("labels-idx1", idx(LABELS + 1), "holds the label 10, must be less than 10"),
    ],
    ids=["empty", "header", "packed", "floats", "short", "long", "huge", "labels", "none", "flat", "no label", "label"],
)
def test_a_damaged_idx_file_is_named(tmp_path, data, part, content, fault):
    path = tmp_path / archives.CLASSES[data] / "raw" / f"t10k-{part}-ubyte"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert refusal(data, tmp_path) == f"{path}: damaged: {fault}; delete it to download it again"


def test_a_file_larger_than_any_published_one_is_refused_unread(fashion, tmp_path):
    path = fashion / "t10k-images-idx3-ubyte"
    with path.open("wb") as file:  # 2**40 bytes that take no space on the disk, as the header says
        file.write(struct.pack(">HBB3I", 0, 8, 3, 2**20, 2**10, 2**10))
        file.truncate(16 + 2**40)
    fault = "has 1,099,511,627,792 bytes, no published file more than 47,040,016; delete it to download it again"
    assert refusal("fashion_mnist", tmp_path) == f"{path}: damaged: {fault}"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_unread(fashion, tmp_path, make):
    path = fashion / "t10k-images-idx3-ubyte"
    path.unlink()
    make(path)
    assert refusal("fashion_mnist", tmp_path).startswith(f"{path}: damaged: not a file")


def test_a_file_of_cifar10_that_is_not_the_published_one_is_not_unpickled(tmp_path):
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    folder = tmp_path / torchvision("datasets").CIFAR10.base_folder
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(Attack()))
    assert "not found and not downloaded" in refusal("cifar10", tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [idx(LABELS[:20]), idx(IMAGES[:19])], ids=["labels", "one image too few"])
def test_images_that_do_not_belong_to_the_labels_are_refused(fashion, tmp_path, content):
    path = fashion / "train-images-idx3-ubyte"
    path.write_bytes(content)
    assert refusal("fashion_mnist", tmp_path).startswith(f"{path}: damaged: ")
