"""Ranges come from a balanced, seeded part of the training images, and leave out what they are told to."""

import json

import onnx
import pytest
import torch
from torch import Tensor

from lightweight.data.sampling import balanced_sample
from lightweight.quantization.calibration import describe_images, write_ranges
from tests.examples import exported, pruned_convnet, quantizer


@pytest.mark.parametrize("number", [1, 10, 37, 90, 1000])
def test_classes_are_as_equal_as_they_can_be(number):
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 5)[torch.randperm(95, generator=torch.Generator().manual_seed(1))]
    chosen = balanced_sample(labels, number, seed=3)
    assert len(chosen) == min(number, 95)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    counts = labels[chosen].bincount(minlength=3)
    for label, size in enumerate((60, 30, 5)):
        assert counts[label] == size or counts[label] >= counts.max() - 1


def test_a_seed_draws_the_same_images_and_another_seed_others():
    labels = torch.arange(1000) % 10
    assert torch.equal(balanced_sample(labels, 100, 0), balanced_sample(labels, 100, 0))
    assert not torch.equal(balanced_sample(labels, 100, 0), balanced_sample(labels, 100, 1))


def test_the_chosen_images_are_recorded_by_index_and_class(tiny_dataset):
    rows = describe_images(tiny_dataset, torch.tensor([3, 8]))
    labels = tiny_dataset.train.labels
    assert rows == [{"index": index, "class": tiny_dataset.classes[labels[index]]} for index in (3, 8)]


def test_only_a_method_that_looks_at_images_records_some(tiny_dataset):
    model = pruned_convnet(tiny_dataset)
    assert len(quantizer(model, tiny_dataset, "static", calibration_images=20).run().calibration) == 20
    assert quantizer(model, tiny_dataset, "dynamic").run().calibration == []


@pytest.fixture(scope="module")
def ranges(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranges")
    onnx.save(exported(pruned_convnet(tiny_dataset), tiny_dataset), folder / "model.onnx")

    def ranges(method: str, percentile: float = 99.0, images: Tensor | None = None) -> dict[str, tuple[float, float]]:
        images = tiny_dataset.train.images if images is None else images
        write_ranges(folder / "model.onnx", images, method, percentile, folder / "ranges.json")
        stored = json.loads((folder / "ranges.json").read_text())["data"]
        return {name: tuple(_number(values[end]) for end in ("lowest", "highest")) for name, values in stored.items()}

    return ranges


def _number(value) -> float:
    return (
        float(value["data"][0] if isinstance(value.get("data"), list) else value["data"])
        if isinstance(value, dict)
        else value
    )


def test_extremes_are_those_of_the_pixels(tiny_dataset, ranges):
    low, high = ranges("minmax")["input"]
    assert (low, high) == (float(tiny_dataset.train.images.min()), float(tiny_dataset.train.images.max()))


def test_every_image_is_looked_at(tiny_dataset, ranges):
    images = tiny_dataset.train.images.clamp(max=100)
    images[299, 0, 3, 3] = 250
    assert ranges("minmax", images=images)["input"] == (0, 250)


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_the_other_methods_leave_some_values_out_silently_and_no_range_is_wider(ranges, method, capsys):
    whole, cut = ranges("minmax"), ranges(method)
    assert capsys.readouterr().out == ""
    assert cut.keys() == whole.keys()
    assert all(cut[name][1] <= whole[name][1] * 1.001 + 1e-6 for name in whole)
    widths = {name: (cut[name][1] - cut[name][0]) / (whole[name][1] - whole[name][0]) for name in whole}
    assert min(widths.values()) < 0.95, widths


def test_a_higher_percentile_leaves_out_less(ranges):
    few, most = ranges("percentile", 90.0), ranges("percentile", 99.9)
    assert all(few[name][1] <= most[name][1] + 1e-6 for name in few)
    assert any(few[name][1] < most[name][1] for name in few)
