"""Integers without training: at equal bits, outputs change less than by rounding each weight by itself."""

import math

import pytest
import torch
from torch import nn

from lightweight.codec.scales import scales_of
from lightweight.compaction.layerwise import LARGEST, RateChooser, bits_by_integer, compact_layer
from lightweight.gram.columns import input_columns
from lightweight.gram.measure import Gram


def layer_and_gram(columns: int = 40, rows: int = 64, positions: int = 2000) -> tuple[nn.Linear, Gram]:
    torch.manual_seed(0)
    layer = nn.Linear(columns, rows)
    inputs = torch.randn(positions, columns) @ torch.randn(columns, columns) * torch.linspace(0.1, 2, columns)
    gram = Gram(torch.zeros(1, columns, columns, dtype=torch.float64), torch.zeros(1, columns, dtype=torch.float64))
    gram.add(input_columns(layer, inputs + 0.3, positions, None))
    return layer, gram


def error_of(weight: torch.Tensor, rounded: torch.Tensor, gram: Gram) -> float:
    change = (weight - rounded).double()
    return float(((change @ gram.matrix[0]) * change).sum())


def values_of(layer) -> torch.Tensor:
    return layer.integers * float(scales_of([layer.code])[0])


@pytest.mark.parametrize("rate", [1e-6, 1e-5, 1e-4])
def test_error_and_bits_together_cost_less_than_of_any_rounding_to_nearest(rate):
    layer, gram = layer_and_gram()
    weight = layer.weight.detach()
    found = compact_layer(layer, weight, gram, rate)
    energy = error_of(weight, torch.zeros_like(weight), gram)
    cost = error_of(weight, values_of(found), gram) / energy + rate * found.bits
    for code in range(-400, 0, 4):
        step = float(scales_of([code])[0])
        nearest = (weight / step).round().clamp(-LARGEST, LARGEST)
        bits = float(bits_by_integer(nearest)[(nearest + LARGEST).long()].sum())
        assert cost < error_of(weight, nearest * step, gram) / energy + rate * bits


def test_a_higher_rate_takes_fewer_bits_and_makes_more_errors():
    layer, gram = layer_and_gram()
    found = [compact_layer(layer, layer.weight.detach(), gram, rate) for rate in (1e-6, 1e-5, 1e-4, 1e-3)]
    assert [layer.bits for layer in found] == sorted((layer.bits for layer in found), reverse=True)
    assert [layer.error for layer in found] == sorted(layer.error for layer in found)
    assert found[-1].bits < 0.5 * found[0].bits


def test_the_error_is_that_of_the_outputs():
    layer, gram = layer_and_gram()
    weight = layer.weight.detach()
    found = compact_layer(layer, weight, gram, 1e-4)
    energy = error_of(weight, torch.zeros_like(weight), gram)
    assert found.error == pytest.approx(math.sqrt(error_of(weight, values_of(found), gram) / energy))


def test_the_shift_is_the_change_of_mean_outputs():
    layer, gram = layer_and_gram()
    found = compact_layer(layer, layer.weight.detach(), gram, 1e-3)
    change = layer.weight.detach().double() - values_of(found)
    assert torch.allclose(found.shift.double(), change @ gram.mean[0], atol=1e-5)


def test_without_a_price_of_bits_the_nearest_integer_is_chosen():
    targets = torch.linspace(-5, 5, 101, dtype=torch.float64)[None]
    chosen = RateChooser(0.5, bits_by_integer(torch.zeros(10)), price=0.0)(targets, torch.tensor([0]), torch.ones(1))
    assert (chosen - targets).abs().max() <= 0.25 + 1e-9


def test_the_price_moves_a_choice_to_the_integer_that_costs_less_with_its_bits():
    bits = torch.full((2 * LARGEST + 1,), 10.0, dtype=torch.float64)
    bits[LARGEST] = 1.0
    for target, price, expected in ((0.6, 0.02, 1.0), (0.6, 0.03, 0.0), (2.6, 0.02, 3.0), (2.6, 1.0, 0.0)):
        chooser = RateChooser(1.0, bits, price)
        targets = torch.tensor([[target]], dtype=torch.float64)
        assert float(chooser(targets, torch.tensor([0]), torch.ones(1))) == expected
        costs = {n: (target - n) ** 2 + price * float(bits[n + LARGEST]) for n in (0, round(target), int(target))}
        assert costs[int(expected)] == min(costs.values())


def test_bits_are_those_of_the_shares():
    integers = torch.tensor([0.0] * 6 + [1.0] * 3 + [-2.0])
    bits = bits_by_integer(integers.repeat(1000))
    assert [float(bits[LARGEST + n]) for n in (0, 1, -2)] == pytest.approx(
        [-math.log2(share) for share in (0.6, 0.3, 0.1)], abs=0.02
    )
