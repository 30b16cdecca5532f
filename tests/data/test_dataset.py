from dataclasses import replace

import numpy as np
import pytest
import torch

from lightweight.core.errors import InputError
from lightweight.data.dataset import Dataset, random_indices, resize
from lightweight.data.dataset_file import load_dataset, save_dataset
from lightweight.networks.model_file import new_model, save_model

SAVE_AGAIN = """
import sys
from pathlib import Path
from lightweight.data.dataset_file import load_dataset, save_dataset
save_dataset(Path(sys.argv[2]), load_dataset(Path(sys.argv[1])))
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prepared.safetensors"


def refusal(path) -> str:
    with pytest.raises(InputError) as error:
        load_dataset(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_equal(found: Dataset, expected: Dataset) -> None:
    assert (found.classes, found.input_size) == (expected.classes, expected.input_size)
    for name in ("train", "val", "test"):
        for part in ("images", "labels"):
            one, other = (getattr(getattr(dataset, name), part) for dataset in (found, expected))
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.std, expected.std)


def test_a_saved_data_set_comes_back_bitwise(path, tiny_dataset, colour_dataset):
    for dataset in (tiny_dataset, colour_dataset, replace(colour_dataset, input_size=20)):
        save_dataset(path, dataset)
        assert_equal(load_dataset(path), dataset)


def test_equal_data_sets_give_equal_bytes_in_every_process(path, tiny_dataset, start_python):
    save_dataset(path, tiny_dataset)
    copy = path.with_name("copy")
    process = start_python(SAVE_AGAIN, path, copy, PYTHONHASHSEED="1")
    assert process.communicate(timeout=60) == ("", "")
    assert path.read_bytes() == copy.read_bytes()


def test_equal_data_sets_give_equal_bytes_in_every_memory_layout(path, colour_dataset):
    files = []
    for layout in (torch.contiguous_format, torch.channels_last):
        train = replace(colour_dataset.train, images=colour_dataset.train.images.contiguous(memory_format=layout))
        save_dataset(path, replace(colour_dataset, train=train))
        files.append(path.read_bytes())
    assert files[0] == files[1]


def test_another_data_set_gives_other_bytes(path, tiny_dataset):
    files = []
    for classes in (tiny_dataset.classes, tiny_dataset.classes[::-1]):
        save_dataset(path, replace(tiny_dataset, classes=classes))
        files.append(path.read_bytes())
    assert files[0] != files[1]


def test_the_file_holds_the_images_as_single_bytes(path, tiny_dataset):
    save_dataset(path, tiny_dataset)
    assert path.stat().st_size < 1.1 * (420 * 28 * 28 + 420 * 8)


def test_shape_and_classes_are_those_of_the_images(tiny_dataset, colour_dataset):
    assert (tiny_dataset.channels, tiny_dataset.image_size, tiny_dataset.num_classes) == (1, 28, 10)
    assert (colour_dataset.channels, colour_dataset.image_size, colour_dataset.num_classes) == (3, 8, 2)


@pytest.mark.parametrize("count", [0, 7, 100, 500])
def test_random_indices_are_the_beginning_of_one_permutation_for_each_seed(count):
    drawn = random_indices(100, count, seed=3)
    assert len(set(drawn.tolist())) == len(drawn) == min(count, 100)
    assert drawn.equal(random_indices(100, 100, seed=3)[:count])
    assert sorted(random_indices(100, 100, seed=3).tolist()) == list(range(100))
    assert not random_indices(100, 100, seed=3).equal(random_indices(100, 100, seed=4))


def test_random_indices_leave_the_global_random_state_alone():
    state = torch.random.get_rng_state()
    random_indices(100, 10, seed=3)
    assert torch.random.get_rng_state().equal(state)


def test_normalized_training_images_have_zero_mean_and_unit_variance_in_each_channel(tiny_dataset, colour_dataset):
    for dataset in (tiny_dataset, colour_dataset):
        std, mean = torch.std_mean(dataset.normalize(dataset.train.images), dim=(0, 2, 3), correction=0)
        torch.testing.assert_close(mean, torch.zeros(dataset.channels), atol=1e-5, rtol=0)
        torch.testing.assert_close(std, torch.ones(dataset.channels), atol=1e-5, rtol=0)


def test_normalizing_gives_channels_last_floats_and_leaves_the_images(colour_dataset):
    before = colour_dataset.val.images.clone()
    found = colour_dataset.normalize(colour_dataset.val.images)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(colour_dataset.val.images, before)


def test_other_splits_are_normalized_by_the_statistics_of_training(colour_dataset):
    expected = (colour_dataset.test.images / 255 - colour_dataset.mean.view(3, 1, 1)) / colour_dataset.std.view(3, 1, 1)
    torch.testing.assert_close(colour_dataset.normalize(colour_dataset.test.images), expected)


def test_normalizing_enlarges_bilinearly_to_the_input_size(colour_dataset):
    large = replace(colour_dataset, input_size=20)
    images = colour_dataset.val.images
    found = large.normalize(images)
    assert found.shape == (20, 3, 20, 20)
    assert found.is_contiguous(memory_format=torch.channels_last)
    expected = [torch.from_numpy(bilinear(image.float().numpy(), 20)) for image in images[:, 0]]
    mean, std = large.mean[0], large.std[0]
    torch.testing.assert_close(found[:, 0], (torch.stack(expected) / 255 - mean) / std, rtol=1e-4, atol=1e-4)
    assert torch.equal(resize(images.float(), 8), images.float())


def bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Pixel centres at (i + 1/2) / size of the side, the outermost pixels go on beyond theirs."""
    place = (np.arange(size) + 0.5) * len(image) / size - 0.5
    known = np.arange(len(image))
    rows = np.stack([np.interp(place, known, column) for column in image.T], 1)
    return np.stack([np.interp(place, known, row) for row in rows]).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 60, 100])
def test_batches_hold_every_image_once_as_stored(tiny_dataset, size):
    split = tiny_dataset.val
    images, labels = zip(*tiny_dataset.batches(split, size), strict=True)
    assert [len(batch) for batch in images[:-1]] == [size] * (len(images) - 1)
    assert torch.equal(torch.cat(images), tiny_dataset.normalize(split.images))
    assert torch.equal(torch.cat(labels), split.labels)


def test_taking_keeps_every_image_with_its_label(tiny_dataset):
    part = tiny_dataset.train.take(torch.tensor([5, 0, 5]))
    assert len(part) == 3
    assert torch.equal(part.images, torch.stack([tiny_dataset.train.images[index] for index in (5, 0, 5)]))
    assert part.labels.tolist() == [tiny_dataset.train.labels[index].item() for index in (5, 0, 5)]


def test_every_tensor_moves_to_the_device(colour_dataset):
    moved = colour_dataset.to(torch.device("meta"))
    tensors = [moved.mean, moved.std]
    tensors += [tensor for split in (moved.train, moved.val, moved.test) for tensor in (split.images, split.labels)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.classes == colour_dataset.classes


def test_a_damaged_file_is_refused(path, colour_dataset):
    save_dataset(path, colour_dataset)
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(path).startswith(f"{path}: damaged or not a safetensors file: ")


def test_a_model_file_is_not_a_data_set(path, colour_dataset):
    save_model(path, new_model("convnet", False, colour_dataset))
    assert refusal(path) == f"{path}: not a prepared data set: train.images is missing"
