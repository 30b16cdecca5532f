import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from lightweight.core.errors import InputError
from lightweight.data.dataset import SPLITS, Dataset
from lightweight.data.dataset_file import load_dataset, save_stored_dataset
from lightweight.data.shards import INDEX
from lightweight.data.stored_images import StoredImages
from lightweight.preparation.assembly import load_images, write_dataset
from tests.storing import COLOURS, store

MEND = "`dvc checkout` brings it back, or `dvc repro` makes it anew"


@pytest.fixture(params=["pixels", "png"])
def stored(request, tmp_path) -> tuple[Path, Dataset]:
    """A data set in shards of a few images each, written to `prepared.safetensors`, and the same in memory."""
    return store(tmp_path, request.param, shard_bytes=2_500)


def refusal(path: Path, use: bool = False) -> str:
    with pytest.raises(InputError) as error:
        load_images(load_dataset(path)) if use else load_dataset(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def shards(path: Path) -> list[Path]:
    return sorted(path.with_suffix("").glob("*.safetensors"))


def test_stored_images_are_those_in_memory_however_they_are_asked_for(stored):
    path, expected = stored
    found = load_dataset(path)
    assert len(shards(path)) > 3
    for name in SPLITS:
        mine, other = getattr(found, name), getattr(expected, name)
        assert isinstance(mine.images, StoredImages)
        assert mine.images.shape == tuple(other.images.shape)
        assert torch.equal(mine.labels, other.labels)
        assert torch.equal(mine.images[:], other.images)
        assert torch.equal(mine.images[2:5], other.images[2:5])
        order = torch.randperm(len(other))
        assert torch.equal(mine.images[order], other.images[order])
        assert torch.equal(mine.take(order).take(order[:3]).images[:], other.take(order).take(order[:3]).images)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.std, expected.std)
    assert (found.classes, found.input_size) == (expected.classes, expected.input_size)
    assert (found.channels, found.image_size) == (3, 12)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_batches_are_those_in_memory_with_any_number_of_workers(stored, monkeypatch, workers):
    monkeypatch.setenv("LIGHTWEIGHT_WORKERS", workers)
    path, expected = stored
    pairs = zip(
        load_dataset(path).batches(load_dataset(path).train, 3), expected.batches(expected.train, 3), strict=True
    )
    for (images, labels), (same_images, same_labels) in pairs:
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_a_shard_is_a_safetensors_file_of_bounded_size(stored):
    path, _ = stored
    for file in shards(path):
        assert file.stat().st_size <= 2_500
        with safe_open(file, "pt") as content:
            assert list(content.keys()) == ["images"]
            assert content.get_tensor("images").dtype == torch.uint8


def test_equal_images_give_equal_files_whatever_number_of_workers_reads_them(tmp_path, monkeypatch):
    found = []
    for workers in ("0", "2"):
        monkeypatch.setenv("LIGHTWEIGHT_WORKERS", workers)
        path, _ = store(tmp_path / workers, "png", shard_bytes=2_500, copies=20)
        found.append({file.name: file.read_bytes() for file in (path, *path.with_suffix("").iterdir())})
    assert found[0] == found[1]


def test_nothing_is_in_memory_that_is_not_used(stored):
    path, _ = stored
    images = load_dataset(path).train.images
    assert isinstance(images, StoredImages)
    assert images.shards._opened == {}
    _ = images[0:1]
    assert len(images.shards._opened) == 1


def test_a_missing_shard_is_named(stored):
    path, _ = stored
    shards(path)[1].unlink()
    assert refusal(path) == f"{shards(path)[0].with_name('0001.safetensors')}: no such file; {MEND}"


def test_a_truncated_shard_is_named_with_both_sizes(stored):
    path, _ = stored
    shard = shards(path)[1]
    size = shard.stat().st_size
    os.truncate(shard, size - 1)
    assert refusal(path) == f"{shard}: has {size - 1:,} bytes, must have {size:,}; {MEND}"


@pytest.mark.parametrize("place", [-1, -400])
def test_an_altered_byte_of_an_image_is_found_when_it_is_read(stored, place):
    path, _ = stored
    shard = shards(path)[2]
    content = bytearray(shard.read_bytes())
    content[place] ^= 1
    shard.write_bytes(content)
    line = refusal(path, use=True)
    assert line.startswith(f"{shard}: damaged: image ")
    assert line.endswith(f" is not the one that was prepared; {MEND}")


def test_an_altered_header_of_a_shard_is_named(stored):
    path, _ = stored
    shard = shards(path)[0]
    shard.write_bytes(b"\xff" * 600 + shard.read_bytes()[600:])
    assert refusal(path, use=True).startswith(f"{shard}: damaged or not a shard: ")


def test_shards_that_have_changed_places_are_found(stored):
    path, _ = stored
    index = path.with_suffix("") / INDEX
    index.write_text(
        index.read_text().replace("0001.safe", "x").replace("0002.safe", "0001.safe").replace("x", "0002.safe")
    )
    assert refusal(path) == f"{index}: the index of another data set than {path}; {MEND}"


def test_the_index_of_another_data_set_is_refused(tmp_path):
    path, _ = store(tmp_path / "one", "png", shard_bytes=2_500)
    other, _ = store(tmp_path / "other", "jpeg", shard_bytes=2_500)
    index = path.with_suffix("") / INDEX
    index.write_bytes((other.with_suffix("") / INDEX).read_bytes())
    assert refusal(path) == f"{index}: the index of another data set than {path}; {MEND}"


def test_a_missing_index_is_named(stored):
    path, _ = stored
    (path.with_suffix("") / INDEX).unlink()
    assert refusal(path) == f"{path.with_suffix('') / INDEX}: no such file; `dvc repro` makes it"


def test_a_data_set_in_memory_takes_the_place_of_one_in_shards(stored):
    path, expected = stored
    write_dataset(path, expected)
    assert [file.name for file in path.with_suffix("").iterdir()] == [INDEX]
    assert torch.equal(load_dataset(path).train.images[:], expected.train.images)
    write_dataset(path, replace(expected, classes=("a", "b")))
    assert load_dataset(path).classes == ("a", "b")


def test_jpeg_is_near_and_much_smaller_than_pixels(tmp_path):
    path, expected = store(tmp_path, "jpeg", shard_bytes=10_000)
    images = load_dataset(path).train.images[:]
    assert (images.int() - expected.train.images.int()).abs().float().mean() < 8
    assert len(np.unique(COLOURS)) > 100


@pytest.mark.parametrize("place", [-1, 40])
def test_a_place_that_is_in_no_shard_is_refused(stored, place):
    path, _ = stored
    found = load_dataset(path)
    bad = replace(found.val.images, places=torch.full((len(found.val),), place))
    index = hashlib.sha256((path.with_suffix("") / INDEX).read_bytes()).hexdigest()
    save_stored_dataset(path, replace(found, val=replace(found.val, images=bad)), index)
    assert refusal(path) == f"{path}: not a prepared data set: val.places must be int64 below 40"
