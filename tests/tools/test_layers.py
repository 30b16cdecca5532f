"""Layers are measured alone and by their absence, on images that calibration has not seen."""

import pytest
import torch

from lightweight.core.errors import InputError
from lightweight.data.dataset import Split
from tools.layers import hold_back, measure_layers

ERRORS = {"a": 0.1, "b": 0.4, "c": 0.2}


def test_the_layer_of_the_largest_error_comes_first_with_the_error_that_is_left_without_it():
    def errors(excluded):
        total = sum(value for name, value in ERRORS.items() if name not in excluded)
        return 2 * total, total

    rows = measure_layers(ERRORS, errors)
    assert [row["layer"] for row in rows] == ["b", "c", "a"]
    for row in rows:
        own = ERRORS[row["layer"]]
        assert (row["only"], row["only_nearest"]) == pytest.approx((own, 2 * own))
        assert (row["others"], row["others_nearest"]) == pytest.approx((0.7 - own, 1.4 - 2 * own))


def test_images_that_are_held_back_are_not_those_of_calibration():
    train = Split(torch.arange(20).view(20, 1, 1, 1).to(torch.uint8), torch.arange(20) % 2)
    calibration = torch.tensor([0, 3, 4, 7, 19])
    held = hold_back(train, calibration, 8, 0).images.flatten().tolist()
    assert len(set(held)) == 8
    assert not set(held) & set(calibration.tolist())
    with pytest.raises(InputError, match="none is left"):
        hold_back(train, torch.arange(20), 8, 0)
