"""Saliencies are the least that a layer's squared outputs change by without a weight."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from lightweight.gram.columns import Window, input_columns
from lightweight.gram.ldl import damp
from lightweight.reconstruction.least_squares import refit
from lightweight.reconstruction.obs import SHARE, measure_saliencies, rank_in_rounds
from tests.gram.test_matmul import random
from tests.gram.test_sweep import correlated, energy

IMAGES = torch.randn(40, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def batches() -> Iterator[Tensor]:
    yield from IMAGES.split(10)


def test_the_first_to_go_cost_what_is_lost_without_them_when_the_others_make_up_for_it():
    weights, matrix = random(2, 4, 15), correlated(2, 15)
    costs = rank_in_rounds(weights, matrix)
    for place in costs.flatten().argsort()[: int(SHARE * costs.numel()) - 1].tolist():  # the last has ties
        kept = torch.ones_like(weights, dtype=torch.bool)
        kept.view(-1)[place] = False
        expected = energy(weights - refit(weights, kept, matrix), damp(matrix))
        assert float(costs.flatten()[place]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("amount", [0.5, 0.8])
def test_what_is_chosen_in_rounds_costs_less_than_by_magnitude_or_by_the_first_saliencies(amount):
    inputs = random(1, 60, 200).cumsum(1)
    weights, matrix = random(1, 16, 60, seed=3), damp(inputs @ inputs.mT)
    first = weights.square() / torch.linalg.inv(matrix).diagonal(dim1=-2, dim2=-1)[:, None]
    lost = []
    for scores in (rank_in_rounds(weights, matrix), first, weights.abs()):
        kept = torch.ones_like(weights, dtype=torch.bool)
        kept.view(-1)[scores.flatten().argsort()[: round(amount * kept.numel())]] = False
        lost.append(energy(weights - refit(weights, kept, matrix), matrix))
    assert lost[0] < 0.97 * min(lost[1:])


def test_saliencies_are_relative_to_the_root_of_the_squared_outputs():
    layer = nn.Conv2d(4, 3, 2, bias=False)
    saliencies = measure_saliencies(nn.Sequential(layer).eval(), batches)[layer.weight]
    columns = input_columns(layer, IMAGES, 10**6, Window([1, 1], [0, 0], [1, 1])).double()
    rows = layer.weight.detach().double().flatten(1)[None]
    with torch.no_grad():
        whole = layer(IMAGES).double().square().sum().sqrt()
    expected = rank_in_rounds(rows, columns @ columns.mT)[0] / whole
    torch.testing.assert_close(saliencies.flatten(1), expected, rtol=1e-2, atol=1e-3 * float(expected.max()))


def test_every_layer_has_saliencies_in_the_shape_of_its_weight_and_zeros_have_none():
    layers = nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(6, 6, 3, groups=6), nn.Linear(24, 5)
    layers[0].weight.data[2:4] = 0
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.Flatten(), layers[2]).eval()
    saliencies = measure_saliencies(network, batches)
    assert {weight: values.shape for weight, values in saliencies.items()} == {
        layer.weight: layer.weight.shape for layer in layers
    }
    for layer in layers:
        assert torch.equal(saliencies[layer.weight] == 0, layer.weight == 0)
        assert saliencies[layer.weight].ge(0).all()


def test_layers_that_no_image_reaches_have_the_squares_of_their_weights():
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    weight = attention.out_proj.weight

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, images: Tensor) -> Tensor:
            rows = images.flatten(2).mT
            return self.attention(rows, rows, rows, need_weights=False)[0]

    saliencies = measure_saliencies(Network().eval(), batches)
    assert torch.equal(saliencies[weight].argsort(stable=True), weight.abs().argsort(stable=True))
