"""Gram matrices are those of the inputs that a layer multiplies by its weights."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightweight.execution.linear import OneDnnLinear
from lightweight.gram import measure
from lightweight.gram.columns import Window, input_columns, merge_weight, split_weight
from lightweight.gram.measure import Gram, list_reconstructed, measure_grams

LAYERS = {
    "plain": nn.Conv2d(4, 6, 3),
    "padded, strided and dilated": nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2),
    "padding as a word": nn.Conv2d(4, 6, (3, 1), padding="same"),
    "padded by reflection": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4),
}


MODES = {"zeros": "constant", "reflect": "reflect"}


class Padding(nn.Conv2d):
    """Pad inputs itself, as networks that came from TensorFlow do."""

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.conv2d(functional.pad(inputs, [0, 1, 0, 1]), self.weight, self.bias, self.stride)


def images(number: int = 10) -> Tensor:
    return torch.randn(number, 4, 9, 9, generator=torch.Generator().manual_seed(0))


def grams_of(network: nn.Module, inputs: Tensor, **limits: int) -> dict[str, Gram]:
    def batches() -> Iterator[Tensor]:
        yield from inputs.split(3)

    return dict(measure_grams(network.eval(), batches, list_reconstructed(network), **limits))


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_columns_times_weights_are_the_outputs(layer):
    rows = split_weight(layer, layer.weight)
    outputs = layer(images()).transpose(0, 1).flatten(1) - layer.bias[:, None]
    padded = functional.pad(images(), layer._reversed_padding_repeated_twice, mode=MODES.get(layer.padding_mode))
    columns = input_columns(layer, padded, 10**6, Window(list(layer.stride), [0, 0], list(layer.dilation)))
    torch.testing.assert_close((rows @ columns).flatten(0, 1), outputs, atol=1e-5, rtol=1e-5)
    assert torch.equal(merge_weight(layer, rows), layer.weight)


@pytest.mark.parametrize("layer", [*LAYERS.values(), nn.Linear(9, 5)], ids=[*LAYERS, "linear over tokens"])
def test_a_gram_matrix_gives_the_squared_outputs_of_any_weights(layer):
    gram = grams_of(nn.Sequential(layer), images())["0"]
    rows = split_weight(layer, layer.weight.detach()).double()
    outputs = nn.Module.__call__(layer, images()).detach().double()
    outputs -= layer.bias.detach().view(-1, 1, 1) if outputs.shape[1] == len(layer.bias) else layer.bias.detach()
    assert float((rows @ gram.matrix * rows).sum()) == pytest.approx(float(outputs.square().sum()), rel=1e-3)
    positions = gram.positions * rows.shape[0] * rows.shape[1] / outputs.numel()
    assert positions == 1
    assert float((rows @ gram.mean[..., None]).sum()) == pytest.approx(
        float(outputs.sum()) / gram.positions, rel=1e-3, abs=1e-4
    )


class PortableLinear(nn.Linear):
    """Multiply by oneDNN, as all linear layers do where `use_portable_linear` has registered it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return OneDnnLinear.apply(inputs, self.weight, self.bias)


def test_inputs_are_those_of_the_operator_whichever_module_calls_it():
    """A convolution that pads by itself, the layers within attention, and portable linear layers."""
    padding, attention = Padding(4, 3, 3, stride=2), nn.TransformerEncoderLayer(9, 3, 12, batch_first=True)
    twin = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 3, 3, stride=2))
    assert torch.equal(grams_of(nn.Sequential(padding), images())["0"].matrix, grams_of(twin, images())["1"].matrix)
    tokens = grams_of(nn.Sequential(nn.Flatten(1, 2), attention), images())
    assert tokens["1.linear1"].positions == 10 * 36
    plain, portable = (grams_of(nn.Sequential(kind(9, 2)), images())["0"] for kind in (nn.Linear, PortableLinear))
    assert plain.positions == 10 * 36
    assert torch.equal(plain.matrix, portable.matrix)


def test_all_positions_are_represented_where_not_all_are_taken():
    layer = nn.Conv2d(1, 1, 1)
    position = torch.arange(36.0).view(1, 1, 6, 6).expand(50, 1, 6, 6)
    taken = input_columns(layer, position, 100, Window([1, 1], [0, 0], [1, 1]))[0, 0]
    assert 80 <= len(taken) <= 100
    assert len(taken.unique()) == 36


def test_layers_are_measured_in_parts_where_memory_is_short_and_a_reused_layer_by_all_of_its_inputs():
    network = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    network.append(network[0])
    whole, parts = grams_of(network, images()), grams_of(network, images(), max_bytes=1)
    assert list(whole) == list(parts) == ["0", "2"]
    assert all(torch.equal(whole[name].matrix, parts[name].matrix) for name in whole)
    assert whole["0"].positions == 2 * whole["2"].positions


def test_a_sum_has_the_same_bits_for_any_order_of_the_images_in_a_batch():
    layer = nn.Conv2d(4, 2, 3, padding=1)
    one, other = (grams_of(nn.Sequential(layer), inputs) for inputs in (images(3), images(3).flip(0)))
    assert torch.equal(one["0"].matrix, other["0"].matrix)


def test_a_wide_layer_is_split_into_blocks_of_columns(monkeypatch):
    monkeypatch.setattr("lightweight.gram.columns.MAX_COLUMNS", 20)
    layer = nn.Conv2d(4, 3, 3)  # 36 columns
    gram = grams_of(nn.Sequential(layer), images())["0"]
    assert gram.matrix.shape == (2, 18, 18)
    rows = split_weight(layer, layer.weight)
    assert rows.shape == (2, 3, 18)
    assert torch.equal(merge_weight(layer, rows), layer.weight)
    columns = functional.unfold(images(), 3).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(gram.matrix[1], columns[18:] @ columns[18:].T, rtol=1e-3, atol=1e-2)


def test_positions_of_a_batch_stay_few_enough_for_exact_sums():
    assert measure.POSITIONS_PER_BATCH * 2 ** (2 * measure.BITS) <= 2**53
