"""The layers of a network are found by name, with MACs that add up to those of the network."""

from torch import nn

from lightweight.evaluation.layers import LAYER_COLUMNS, WeightedModule, layer_rows, list_modules
from lightweight.macs import count_macs, count_macs_by_module
from tests.examples import bnnet, noise


def test_every_convolution_and_linear_layer_is_listed_with_its_macs():
    image = noise(size=8).blank(1)
    model = bnnet(1, 8, 2)
    modules = list_modules(model, image)
    assert list(modules) == ["0", "4", "9", "12"]
    assert modules["0"] == WeightedModule((8, 1, 3, 3), 8 * 8 * 8 * 9)
    assert modules["4"] == WeightedModule((16, 8, 3, 3), 4 * 4 * 16 * 8 * 9)
    assert sum(module.macs for module in modules.values()) == count_macs(model, image)


def test_a_block_has_the_macs_of_what_is_inside_it():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1)), nn.Flatten(), nn.Linear(72, 3))
    macs = count_macs_by_module(model, noise(size=8).blank(1))
    assert macs["0"] == macs["0.0"] + macs["0.1"]
    assert macs["2"] == 72 * 3


def test_rows_hold_both_shapes_of_the_layers_that_both_networks_have():
    before = {"a": WeightedModule((8, 4, 3, 3), 100), "gone": WeightedModule((2, 2), 4)}
    after = {"a": WeightedModule((6, 4, 3, 3), 75), "new": WeightedModule((1, 1), 1)}
    rows = layer_rows(before, after)
    assert rows == [dict(zip(LAYER_COLUMNS, ("a", "8x4x3x3", 100, "6x4x3x3", 75), strict=True))]
    assert layer_rows({}, {}) == []
