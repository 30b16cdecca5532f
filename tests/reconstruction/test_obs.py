"""Saliencies are the least that a layer's squared outputs change by without a weight."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from lightweight.gram.columns import input_columns
from lightweight.gram.ldl import damp
from lightweight.reconstruction.least_squares import refit
from lightweight.reconstruction.obs import measure_saliencies

IMAGES = torch.randn(40, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def batches() -> Iterator[Tensor]:
    yield from IMAGES.split(10)


def test_a_saliency_is_the_cost_without_the_weight_when_the_others_make_up_for_it():
    layer = nn.Conv2d(4, 3, 2)
    saliencies = measure_saliencies(nn.Sequential(layer).eval(), batches)[layer.weight].flatten(1)
    columns = input_columns(layer, IMAGES, 10**6)[0].double()
    matrix, weights = (columns @ columns.T)[None], layer.weight.detach().double().flatten(1)
    whole = (weights @ matrix[0] * weights).sum().sqrt()
    for row, column in ((0, 0), (1, 5), (2, 15)):
        kept = torch.ones(1, 1, 16, dtype=torch.bool)
        kept[..., column] = False
        change = weights[row] - refit(weights[None, row, None], kept, matrix)[0, 0]
        cost = change @ damp(matrix)[0] @ change / whole
        assert float(saliencies[row, column]) == pytest.approx(float(cost), rel=1e-3)


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
    torch.testing.assert_close(saliencies[weight], weight.detach().double().square())
