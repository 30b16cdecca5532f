import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from lightweight.core.errors import InputError
from lightweight.core.params import load_params
from lightweight.core.torchvision_compat import torchvision
from lightweight.data.dataset import Dataset
from lightweight.data.dataset_file import load_dataset, save_dataset
from lightweight.data.resizing import FIT, Resizing
from lightweight.data.stored_images import StoredImages
from lightweight.preparation.packing import LIMITS, Limits
from lightweight.preparation.params import PrepareParams
from lightweight.preparation.prepare import open_source, read_dataset

SPLITS = ("train", "val", "test")
STATISTICS = (
    "must be data, imagenet, or {mean: [...], std: [...]} of pixels from 0 to 1: a number of each for every channel, "
    "means from 0 to 1, deviations above 0"
)
WAYS = "must be fit, or {shorter_side: 256, interpolation: bilinear} with a side from 8 to 2048 and bilinear or bicubic"


def prepare(seed: int = 0, raw: Path = Path("nowhere"), root: Path = Path("nowhere"), **changed: object) -> Dataset:
    return read(prepare_params(**changed), raw, root, seed)[0]


def read(params: PrepareParams, raw: Path, root: Path, seed: int) -> tuple[Dataset, list[dict[str, Any]]]:
    """A data set of stored images reads no more of them after this."""
    source = open_source(params, raw, root)
    with TemporaryDirectory() as folder:
        return read_dataset(params, source, seed, Path(folder)), source.finding_rows()


def prepare_params(**changed: object) -> PrepareParams:
    known = {"dataset": "digits", "path": None, "image_size": 8, "resize": "fit", "input_size": None, "channels": 1}
    return PrepareParams(
        **known | {"normalization": "data", "storage": "pixels", "val_fraction": 0.25, "test_fraction": 0.25} | changed
    )


def refusal(**changed: object) -> str:
    with pytest.raises(InputError) as error:
        prepare(**changed)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return prepare()


@pytest.fixture
def colours(write_image, tmp_path) -> Path:
    """12 images of 2 classes in several sizes and modes; no image has any blue."""
    for index in range(6):
        write_image(f"red/{index}.png", (8 + index, 9), "RGB", (200 + index, index, 0))
        write_image(f"green/{index}.png", (8, 8 + index), "RGBA", (index, 100, 0, 255))
    return tmp_path


def rows(dataset: Dataset, *names: str) -> list[list[int]]:
    """Label and pixels of every image, sorted."""
    splits = [getattr(dataset, name) for name in names]
    return sorted(row for s in splits for row in torch.column_stack([s.labels, s.images.flatten(1)]).tolist())


def test_digits_are_1797_images_of_1x28x28_in_10_classes():
    dataset = prepare(image_size=28)
    assert dataset.train.images.shape[1:] == (1, 28, 28)
    assert sum(len(getattr(dataset, name)) for name in SPLITS) == 1797
    assert dataset.classes == tuple("0123456789")


def test_splits_are_disjoint_and_complete(digits):
    images = np.round(load_digits().images.reshape(1797, 64) * 255 / 16).astype(int)
    expected = np.column_stack([load_digits().target, images]).tolist()
    assert rows(digits, *SPLITS) == sorted(expected)


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.25), (0.5, 0.5), (0.3, 0.05)])
def test_every_class_gives_its_share_to_every_split_within_one_image(val, test):
    dataset = prepare(val_fraction=val, test_fraction=test)
    whole, left, held, out = (
        torch.bincount(torch.cat([getattr(dataset, name).labels for name in names]), minlength=10)
        for names in (SPLITS, ("train", "val"), ("val",), ("test",))
    )
    assert (out - test * whole).abs().max() <= 1
    assert (held - val * left).abs().max() <= 1
    assert len(dataset.test) == pytest.approx(test * 1797, abs=1)
    assert len(dataset.val) == pytest.approx(val * (1797 - len(dataset.test)), abs=1)


def test_the_split_depends_on_the_seed_alone(digits):
    again, other = prepare(), prepare(seed=1)
    for name in SPLITS:
        first, second, third = (getattr(dataset, name).images for dataset in (digits, again, other))
        assert torch.equal(first, second)
        assert first.shape == third.shape
        assert not torch.equal(first, third)


def test_splits_are_uint8_images_with_int64_labels(digits):
    for name in SPLITS:
        split = getattr(digits, name)
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert len(split.images) == len(split.labels)


def test_mean_and_std_are_those_of_the_training_pixels(digits, colours):
    for dataset in (digits, prepare(dataset="folder", path=str(colours), channels=3)):
        pixels = dataset.train.images.numpy() / 255
        found = dataset.std.numpy()
        np.testing.assert_allclose(dataset.mean, pixels.mean((0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(found[found < 1], pixels.std((0, 2, 3))[found < 1], rtol=1e-6)
        assert (dataset.mean.dtype, dataset.std.dtype) == (torch.float32, torch.float32)


def test_imagenet_normalization_is_that_of_its_published_weights(colours):
    dataset = prepare(dataset="folder", path=str(colours), channels=3, normalization="imagenet")
    transform = torchvision("models").ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert dataset.mean.tolist() == pytest.approx(transform.mean)
    assert dataset.std.tolist() == pytest.approx(transform.std)


def test_statistics_that_are_given_are_those_of_the_data_set(colours):
    given = {"mean": [0.25, 0, 1], "std": [0.5, 1, 0.125]}
    dataset = prepare(dataset="folder", path=str(colours), channels=3, normalization=given)
    assert {"mean": dataset.mean.tolist(), "std": dataset.std.tolist()} == given
    assert (dataset.mean.dtype, dataset.std.dtype) == (torch.float32, torch.float32)


def test_photographs_are_resized_as_they_were_for_published_weights_and_the_file_says_so(tmp_path):
    transforms = torchvision("transforms")
    steps = [transforms.Resize(20, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(16)]
    noise, expected = np.random.default_rng(0), []
    for number in range(8):
        path = tmp_path / f"photos/{'ab'[number % 2]}/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (90 + number, 141, 3), dtype=np.uint8)).save(path)
        expected.append(np.asarray(transforms.Compose(steps)(Image.open(path))).transpose(2, 0, 1))
    resize = {"shorter_side": 20, "interpolation": "bicubic"}
    dataset = prepare(dataset="folder", path=str(tmp_path / "photos"), channels=3, image_size=16, resize=resize)
    found = torch.cat([getattr(dataset, name).images for name in SPLITS])
    assert sorted(found.flatten(1).tolist()) == sorted(np.stack(expected).reshape(8, -1).tolist())
    save_dataset(tmp_path / "prepared.safetensors", dataset)
    assert load_dataset(tmp_path / "prepared.safetensors").resizing == Resizing(20, "bicubic")


def test_published_images_are_resized_in_the_same_way_even_those_of_the_wanted_size(digits):
    dataset = prepare(resize={"shorter_side": 10, "interpolation": "bilinear"})
    image = Image.fromarray(digits.train.images[0, 0].numpy()).resize((10, 10), Image.Resampling.BILINEAR)
    assert np.array_equal(dataset.train.images[0, 0], np.asarray(image)[1:9, 1:9])


def test_a_file_of_images_that_are_cut_first_has_no_word_of_it(digits, tmp_path):
    save_dataset(tmp_path / "prepared.safetensors", digits)
    assert b"resize" not in (tmp_path / "prepared.safetensors").read_bytes()[:2000]
    assert load_dataset(tmp_path / "prepared.safetensors").resizing == FIT


def test_the_input_size_is_the_image_size_or_larger(colours):
    assert prepare(image_size=12).input_size == 12
    assert prepare(image_size=12, input_size=20).input_size == 20
    assert prepare(image_size=12, input_size=20).train.images.shape[2:] == (12, 12)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input_size": 7}, "must be greater than or equal to 8"),
        ({"image_size": 12, "input_size": 8}, "must be at least prepare.image_size = 12, or null"),
        ({"normalization": "imagenet"}, "ImageNet is in colour: needs prepare.channels = 3"),
        ({"normalization": "mean"}, STATISTICS),
        ({"normalization": 0.5}, STATISTICS),
        ({"normalization": {"mean": [0.5]}}, STATISTICS),
        ({"normalization": {"mean": [0.5], "std": [0.0]}}, STATISTICS),
        ({"normalization": {"mean": [-0.5], "std": [0.5]}}, STATISTICS),
        ({"normalization": {"mean": [127.5], "std": [0.5]}}, STATISTICS),
        ({"normalization": {"mean": [0.5], "std": ["0.5"]}}, STATISTICS),
        ({"normalization": {"mean": [0.5], "std": [0.5], "unit": 1}}, STATISTICS),
        (
            {"normalization": {"mean": [0.5] * 3, "std": [0.5]}},
            "needs 1 mean and 1 deviation, because prepare.channels = 1",
        ),
        (
            {"channels": 3, "normalization": {"mean": [0.5], "std": [0.5]}},
            "needs 3 means and 3 deviations, because prepare.channels = 3",
        ),
        ({"resize": "crop"}, WAYS),
        ({"resize": 256}, WAYS),
        ({"resize": {"shorter_side": 256}}, WAYS),
        ({"resize": {"interpolation": "nearest", "shorter_side": 256}}, WAYS),
        ({"resize": {"interpolation": "bilinear", "shorter_side": 2049}}, WAYS),
        (
            {"image_size": 12, "resize": {"interpolation": "bilinear", "shorter_side": 11}},
            "shorter_side must be at least prepare.image_size = 12",
        ),
    ],
)
def test_what_cannot_go_together_is_refused(tmp_path, changed, message):
    path, (key, value) = tmp_path / "params.yaml", list(changed.items())[-1]
    section = prepare_params().model_dump() | changed
    path.write_text(json.dumps({"prepare": section}))
    with pytest.raises(InputError) as error:
        load_params(path, prepare=PrepareParams)
    assert str(error.value) == f"{path}: prepare.{key} = {value!r}: {message}"


def test_findings_of_a_folder_come_with_its_data_set(colours):
    (colours / "red/0.png").write_bytes(b"")
    dataset, findings = read(prepare_params(dataset="folder", path=str(colours), channels=3), Path(), Path(), 0)
    assert sum(len(getattr(dataset, name)) for name in SPLITS) == 11
    assert [row["images"] for row in findings if row["finding"].startswith("skipped")] == [1]
    assert read(prepare_params(), Path(), Path(), 0)[1] == []


def test_a_constant_channel_is_normalized_to_zero(colours):
    dataset = prepare(dataset="folder", path=str(colours), channels=3)
    assert dataset.std[2] == 1
    assert (dataset.std[:2] < 1).all()
    assert (dataset.normalize(dataset.train.images)[:, 2] == 0).all()


@pytest.mark.parametrize("size", [8, 12])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dataset", ["digits", "folder"])
def test_every_source_survives_saving_at_every_size_and_number_of_channels(colours, dataset, channels, size):
    expected = prepare(dataset=dataset, path=str(colours), image_size=size, channels=channels)
    save_dataset(colours / "prepared.safetensors", expected)
    found = load_dataset(colours / "prepared.safetensors")
    assert found.train.images.shape[1:] == (channels, size, size)
    for name in SPLITS:
        assert torch.equal(getattr(found, name).images, getattr(expected, name).images)


def test_a_folder_keeps_every_image_with_its_class(colours):
    dataset = prepare(dataset="folder", path=str(colours), channels=3)
    assert dataset.classes == ("green", "red")
    found = [(row[0], row[1], row[65]) for row in rows(dataset, *SPLITS)]
    assert found == [(0, index, 100) for index in range(6)] + [(1, 200 + index, index) for index in range(6)]


def test_the_path_of_a_folder_is_relative_to_the_root(colours):
    absolute = prepare(dataset="folder", path=str(colours))
    relative = prepare(dataset="folder", path=colours.name, root=colours.parent)
    assert torch.equal(absolute.train.images, relative.train.images)


def test_the_splits_of_a_folder_are_kept_and_only_a_missing_one_is_made(write_image, tmp_path):
    for split, number in (("train", 8), ("test", 1)):
        for name in ("a", "b"):
            for index in range(number):
                write_image(f"{split}/{name}/{index}.png", value=index)
    counts = [len(getattr(prepare(dataset="folder", path=str(tmp_path)), name)) for name in SPLITS]
    assert counts == [12, 4, 2]
    for name in ("a", "b"):
        write_image(f"val/{name}/0.png")
    counts = [len(getattr(prepare(dataset="folder", path=str(tmp_path)), name)) for name in SPLITS]
    assert counts == [16, 2, 2]


def test_mnist_keeps_its_test_split_and_gives_a_tenth_of_training_to_validation(mnist_raw):
    dataset = prepare(dataset="mnist", raw=mnist_raw, image_size=28, val_fraction=0.1)
    assert [len(getattr(dataset, name)) for name in SPLITS] == [54_000, 6_000, 10_000]
    assert dataset.classes == tuple("0123456789")
    assert dataset.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert dataset.mean.item() == pytest.approx(0.1307, abs=0.001)
    assert dataset.std.item() == pytest.approx(0.3081, abs=0.001)


def test_an_unknown_data_set_is_refused_with_the_known_ones(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps({"prepare": prepare_params().model_dump() | {"dataset": "imagenet"}}))
    with pytest.raises(InputError) as error:
        load_params(path, prepare=PrepareParams)
    rule = "must be 'digits', 'mnist', 'fashion_mnist', 'cifar10' or 'folder'"
    assert str(error.value) == f"{path}: prepare.dataset = 'imagenet': {rule}"


def test_a_folder_needs_a_path():
    rule = "the data set 'folder' needs the path of an image folder"
    assert refusal(dataset="folder") == f"params.yaml: prepare.path = None: {rule}"


@pytest.mark.parametrize(("number", "key"), [(1, "test_fraction"), (2, "val_fraction")])
def test_a_class_with_too_few_images_to_split_is_named(write_image, tmp_path, number, key):
    for name, images in (("lonely", number), ("social", 9)):
        for index in range(images):
            write_image(f"{name}/{index}.png")
    found = refusal(dataset="folder", path=str(tmp_path))
    assert found.startswith(f"params.yaml: prepare.{key} = 0.25: ")
    assert "lonely" in found
    assert "social" not in found


@pytest.mark.parametrize(
    ("key", "share"), [("test_fraction", 0.001), ("val_fraction", 0.001), ("test_fraction", 0.999)]
)
def test_a_share_that_leaves_a_class_out_is_refused(key, share):
    assert refusal(**{key: share}).startswith(f"params.yaml: prepare.{key} = {share}: ")


def test_images_keep_their_labels_where_files_before_them_cannot_be_read(colours):
    for name in ("green/0.png", "green/3.png", "red/1.png"):
        (colours / name).write_bytes(b"no image")
    dataset = prepare(dataset="folder", path=str(colours), channels=3)
    found = sorted((row[0], row[1]) for row in rows(dataset, *SPLITS))
    assert found == [(0, index) for index in (1, 2, 4, 5)] + [(1, 200 + index) for index in (0, 2, 3, 4, 5)]


def test_a_class_of_which_nothing_can_be_read_is_named(colours):
    for file in (colours / "red").iterdir():
        file.write_bytes(b"no image")
    assert refusal(dataset="folder", path=str(colours), channels=3).startswith(
        f"{colours / 'red'}: no readable image: "
    )


def test_a_data_set_is_one_file_up_to_256_mebibytes_and_a_shard_has_one_gibibyte(tmp_path):
    assert (LIMITS.one_file_bytes, LIMITS.shard_bytes) == (2**28, 2**30)
    stored = []
    for bytes_ in (1797 * 64 + 511, 1797 * 64 + 512):
        source, limits = open_source(prepare_params(), Path(), Path()), Limits(one_file_bytes=bytes_)
        folder = tmp_path / str(bytes_)
        folder.mkdir()
        stored.append(
            isinstance(read_dataset(prepare_params(), source, 0, folder, limits=limits).train.images, StoredImages)
        )
    assert stored == [True, False]
