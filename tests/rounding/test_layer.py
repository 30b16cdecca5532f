"""Weights rounded together change the outputs of a layer less than weights rounded one by one."""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from lightweight.gram.measure import Gram
from lightweight.rounding.grid import Grid, fit_scales
from lightweight.rounding.layer import RoundedLayer, StoredLayer, round_layer
from lightweight.rounding.saturation import all_neighbours, limit_sums, saturates
from tests.gram.test_measure import LAYERS, grams_of, images

BITS = (2, 3, 4, 8)


def rounded(layer: nn.Module, rounding: str, grid: Grid | None = None) -> tuple[RoundedLayer, Gram]:
    gram = grams_of(nn.Sequential(layer), images())["0"]
    return round_layer(layer, layer.weight.detach(), gram, grid and as_stored(layer, grid), rounding), gram


def as_stored(layer: nn.Module, grid: Grid, orders: Sequence[np.ndarray] = ()) -> StoredLayer:
    integers = grid.integers(layer.weight.detach().double().flatten(1)).view_as(layer.weight)
    return StoredLayer(grid, integers.to(torch.int8), orders)


def grid_of(layer: nn.Module, bits: int) -> Grid:
    high = 2 ** (bits - 1) - 1
    return Grid(layer.weight.detach().double().flatten(1).abs().amax(1, keepdim=True) / high, -high, high)


@pytest.mark.parametrize("layer", [*LAYERS.values(), nn.Linear(9, 5)], ids=[*LAYERS, "linear over tokens"])
@pytest.mark.parametrize("bits", BITS)
def test_gptq_changes_the_outputs_of_a_layer_less_than_rounding_to_nearest(layer, bits):
    grid = grid_of(layer, bits)
    found, _ = rounded(layer, "gptq", grid)
    inputs = images() if isinstance(layer, nn.Conv2d) else images().double().float()
    with torch.no_grad():
        expected = layer(inputs)

        def error(integers: torch.Tensor) -> float:
            twin = type(layer).__new__(type(layer))
            twin.__dict__ = dict(layer.__dict__)
            twin._parameters = dict(layer._parameters)
            scaled = integers.double().flatten(1) * grid.scales
            twin._parameters["weight"] = nn.Parameter(scaled.view_as(layer.weight).float())
            return float((twin(inputs) - expected).norm())

        nearest = grid.integers(layer.weight.double().flatten(1)).view_as(layer.weight)
        assert error(found.integers) <= error(nearest) * 1.001
    assert found.error <= found.nearest_error
    assert found.bits == bits
    assert found.integers.abs().max() <= grid.high


def test_correlated_inputs_let_gptq_save_most_of_the_error():
    layer = nn.Linear(32, 16)
    basis = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    inputs = torch.randn(10, 50, 4, generator=torch.Generator().manual_seed(1)) @ basis
    gram = grams_of(nn.Sequential(layer), inputs)["0"]
    found = round_layer(layer, layer.weight.detach(), gram, as_stored(layer, grid_of(layer, 4)), "gptq")
    assert found.error < 0.3 * found.nearest_error


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_the_shift_makes_up_for_the_change_of_mean_outputs(layer, rounding):
    found, gram = rounded(layer, rounding)
    change = layer.weight.detach() - (found.integers.flatten(1) * found.scales).view_as(layer.weight)
    mean = gram.mean.repeat_interleave(len(layer.weight) // layer.groups, 0)  # (M, columns)
    torch.testing.assert_close(found.shift, (change.flatten(1) * mean).sum(1).float(), atol=1e-5, rtol=1e-4)


def all_large(layer: nn.Module) -> nn.Module:
    """Give every weight nearly the size of the largest, so that sums of neighbours exceed the limit."""
    with torch.no_grad():
        layer.weight.copy_(0.9 + 0.1 * torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(5)))
    return layer


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("blocks", [False, True])
def test_no_sum_of_neighbours_exceeds_the_limit_where_it_must_not(layer, blocks, monkeypatch):
    if blocks:
        monkeypatch.setattr("lightweight.gram.columns.MAX_COLUMNS", 20)
    layer = all_large(deepcopy(layer))
    gram, grid = grams_of(nn.Sequential(layer), images())["0"], grid_of(layer, 8)
    orders = all_neighbours("Conv", layer.weight.shape, layer.groups)
    nearest = grid.integers(layer.weight.detach().double().flatten(1)).numpy()
    limited = nearest
    for order in orders:
        limited = limit_sums(limited, order)
    stored = StoredLayer(grid, torch.from_numpy(limited).view_as(layer.weight), orders)
    found = round_layer(layer, layer.weight.detach(), gram, stored, "gptq")
    assert not any(saturates(found.integers.flatten(1).numpy(), order).any() for order in orders)
    assert found.error <= found.nearest_error
    depthwise = layer.weight.shape[1] == 1 and layer.groups == len(layer.weight)
    assert depthwise or any(saturates(nearest, order).any() for order in orders)


def test_blocks_of_a_wide_layer_share_scales_and_add_their_shifts(monkeypatch):
    monkeypatch.setattr("lightweight.gram.columns.MAX_COLUMNS", 20)
    layer = nn.Conv2d(4, 3, 3)
    found, gram = rounded(layer, "gptq")
    assert found.scales.shape == (3, 1)
    change = layer.weight.detach() - (found.integers.flatten(1) * found.scales).view_as(layer.weight)
    torch.testing.assert_close(found.shift, change.flatten(1) @ gram.mean.flatten().float(), atol=1e-5, rtol=1e-4)


def test_a_dead_input_and_a_layer_without_inputs_are_rounded_to_nearest():
    layer = nn.Linear(4, 2)
    gram = Gram(torch.zeros(1, 4, 4, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.float64))
    grid = grid_of(layer, 4)
    found = round_layer(layer, layer.weight.detach(), gram, as_stored(layer, grid), "gptq")
    assert torch.equal(found.integers, grid.integers(layer.weight.double()).to(torch.int8))
    assert found.shift.eq(0).all()


def test_fitted_scales_cost_no_more_than_that_of_the_largest_weight_and_less_where_one_weight_is_an_outlier():
    weights = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)).double()
    weights[:, 0] *= 3
    importance = torch.rand(6, 50, generator=torch.Generator().manual_seed(1)).double()
    importance[3:, 0] = 0  # the outlier does not matter there
    fitted = fit_scales(weights, importance, 4)
    plain = Grid(weights.abs().amax(1, keepdim=True) / 7, -7, 7)
    costs = [((grid.nearest(weights) - weights).square() * importance).sum(1) for grid in (fitted, plain)]
    assert (costs[0] <= costs[1] * 1.000001).all()
    assert (fitted.scales[3:] < 0.9 * plain.scales[3:]).all()
    assert torch.equal(fitted.scales, fitted.scales.float().double())
