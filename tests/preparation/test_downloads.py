import hashlib
import os
import pickle
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from lightweight.core.errors import InputError
from lightweight.core.torchvision_compat import torchvision
from lightweight.preparation import downloads
from lightweight.preparation.downloads import MAX_UNPACKED_BYTES, TORCHVISION_NAMES, UNPACKED_MD5, read_published

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


@pytest.fixture(params=["mnist", "fashion_mnist"])
def data(request) -> str:
    """A data set of IDX files."""
    return request.param


def write_idx_files(folder: Path) -> dict[str, str]:
    """Write 20 training and 10 test images of noise; returns the MD5 of each file."""
    folder.mkdir(parents=True)
    checksums = {}
    for name, part in (("train", slice(20)), ("t10k", slice(20, 30))):
        for kind, values in (("images-idx3", IMAGES[part]), ("labels-idx1", LABELS[part])):
            path = folder / f"{name}-{kind}-ubyte"
            path.write_bytes(idx(values))
            checksums[path.name] = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return checksums


def refusal(name: str, raw: Path) -> str:
    with pytest.raises(InputError) as error:
        read_published(name, raw)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_digits_are_1797_images_of_17_grey_levels_in_10_classes(tmp_path):
    parts, classes = read_published("digits", tmp_path)
    images, labels = parts.pop("train")
    assert (parts, classes) == ({}, list("0123456789"))
    assert (images.shape, images.dtype, labels.dtype) == ((1797, 8, 8), np.uint8, np.int64)
    assert np.unique(images).tolist() == [round(level * 255 / 16) for level in range(17)]
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.fixture
def noise(data, tmp_path, monkeypatch) -> Path:
    """The folder of the unpacked files of a data set, which for this test are the published ones."""
    folder = tmp_path / TORCHVISION_NAMES[data] / "raw"
    monkeypatch.setitem(UNPACKED_MD5, data, write_idx_files(folder))
    return folder


def test_idx_files_are_read_as_they_are(data, noise, tmp_path):
    parts, classes = read_published(data, tmp_path)
    assert list(parts) == ["train", "test"]
    assert classes[::9] == {"mnist": ["0", "9"], "fashion_mnist": ["T-shirt/top", "Ankle boot"]}[data]
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
    parts, classes = read_published("cifar10", tmp_path)
    assert classes == ["plane", "car"]
    for images, labels in parts.values():
        assert images.shape == (2, 32, 32, 3)
        assert (images == np.array([[10, 20, 30], [11, 21, 31]])[:, None, None]).all()
        assert labels.tolist() == [1, 0]
        assert labels.dtype == np.int64


def test_a_failed_download_names_the_files_to_put_in_place(tmp_path, data):
    folder = tmp_path / TORCHVISION_NAMES[data] / "raw"
    found = refusal(data, tmp_path)
    assert found.startswith(f"params.yaml: prepare.dataset = {data!r}: not found and not downloaded (Error downloading")
    assert "no route to host" in found
    assert found.endswith(f"; put {FILES} in {folder}, or use digits")


def test_a_failed_download_of_cifar10_names_the_archive_to_put_in_place(tmp_path):
    reason = "not found and not downloaded (<urlopen error no route to host>)"
    put = f"put cifar-10-python.tar.gz (or cifar-10-batches-py/ from it) in {tmp_path}, or use digits"
    assert refusal("cifar10", tmp_path) == f"params.yaml: prepare.dataset = 'cifar10': {reason}; {put}"


@pytest.mark.parametrize("missing", UNPACKED_MD5["mnist"])
def test_one_missing_file_is_asked_for(data, noise, tmp_path, missing):
    (noise / missing).unlink()
    assert refusal(data, tmp_path).endswith(f"; put {FILES} in {noise}, or use digits")


@pytest.mark.parametrize("name", UNPACKED_MD5["mnist"])
@pytest.mark.parametrize("content", [b"", idx(LABELS), idx(IMAGES), b"\x1f\x8b\x08" + bytes(20)])
def test_a_file_other_than_the_published_one_is_named(tmp_path, data, name, content):
    path = tmp_path / TORCHVISION_NAMES[data] / "raw" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    rule = f"its MD5 is not {UNPACKED_MD5[data][name]}; delete it to download it again"
    assert refusal(data, tmp_path) == f"{path}: damaged: {rule}"


def test_one_flipped_bit_of_a_published_file_is_found(mnist_raw, tmp_path):
    name = "t10k-labels-idx1-ubyte"
    path = tmp_path / "MNIST" / "raw" / name
    path.parent.mkdir(parents=True)
    content = bytearray((mnist_raw / "MNIST" / "raw" / name).read_bytes())
    path.write_bytes(content)
    assert "not downloaded" in refusal("mnist", tmp_path)  # the file is whole, the other three are missing
    content[5000] ^= 1
    path.write_bytes(content)
    assert refusal("mnist", tmp_path).startswith(f"{path}: damaged: its MD5 is not {UNPACKED_MD5['mnist'][name]}")


def test_a_file_larger_than_any_published_one_is_refused_unread(data, noise, tmp_path):
    path = noise / "t10k-images-idx3-ubyte"
    with path.open("wb") as file:  # 2**40 bytes that take no space on the disk
        file.truncate(2**40)
    assert refusal(data, tmp_path).startswith(f"{path}: damaged: ")


def test_the_largest_published_file_is_read(data, noise, tmp_path, monkeypatch):
    path = noise / "train-images-idx3-ubyte"
    monkeypatch.setattr(downloads, "MAX_UNPACKED_BYTES", path.stat().st_size)
    assert len(read_published(data, tmp_path)[0]["train"][0]) == 20
    assert len(idx(IMAGES[:0])) + 60_000 * IMAGES[0].size == MAX_UNPACKED_BYTES


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_unread(data, noise, tmp_path, make):
    path = noise / "t10k-images-idx3-ubyte"
    path.unlink()
    make(path)
    assert refusal(data, tmp_path).startswith(f"{path}: damaged: ")


def test_pickles_of_an_old_torchvision_are_not_read_in_place_of_checked_files(data, noise, tmp_path):
    processed = noise.with_name("processed")
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)), processed / name)
    assert refusal(data, tmp_path) == f"{processed}: of an old version of torchvision, and not checked; delete it"


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
