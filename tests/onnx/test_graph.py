"""The weights, MACs and precision that are read from a file equal those of the model in PyTorch."""

import onnx
import pytest
from torch import Tensor, nn

from lightweight.data.dataset import Dataset
from lightweight.macs import count_macs
from lightweight.onnx.graph import list_layers
from lightweight.onnx.weights import count_parameters
from lightweight.pruning.groups import sparsity_by_layer
from tests.examples import METHODS, convnet_file, pruned_convnet, shipped, small_cnn, small_images


class Rows(nn.Module):
    """Linear layers applied to each of the 28 rows of an image: in a dimension of their own, then as more images.

    Between them BatchNorm that no layer can absorb, and an activation with constants.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(28, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 10)
        self.activation, self.norm = nn.ReLU6(), nn.BatchNorm1d(28)
        for value in (self.norm.running_mean, self.norm.running_var, self.norm.bias):
            nn.init.uniform_(value, 0.1, 0.2)  # equal ones would be stored once

    def forward(self, images: Tensor) -> Tensor:
        rows = self.norm(self.activation(self.embed(images.flatten(1, 2))))
        return self.head(self.mix(rows.flatten(0, 1)).unflatten(0, (-1, 28)).mean(1))


class Attention(nn.Module):
    """Every row of an image attends to every other."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(28, 16), nn.Linear(16, 10)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        rows = self.embed(images.flatten(1, 2))
        return self.head(self.attention(rows, rows, rows, need_weights=False)[0].mean(1))


class Upsampling(nn.Module):
    """A transposed convolution between a convolution and the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 8, 3, stride=4), nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.head = nn.Linear(4, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.up(self.down(images).relu()).mean((2, 3)))


MACS = {  # by hand: positions x outputs x inputs
    "convnet": [28 * 28 * 16 * 9, 14 * 14 * 32 * 16 * 9, 10 * 32 * 7 * 7],
    "cnn": [12 * 12 * 16 * 25, 6 * 6 * 24 * 16 * 9, 6 * 6 * 32 * 24 * 9, 992 * 32 * 6 * 6, 10 * 992],
    "rows": [28 * 16 * 28, 28 * 16 * 16, 10 * 16],
    "attention": [28 * 16 * 28, 28 * 48 * 16, 28 * 28 * 16, 28 * 16 * 28, 28 * 16 * 16, 10 * 16],
    "upsampling": [7 * 7 * 8 * 9, 7 * 7 * 8 * 4 * 4, 10 * 4],
}


@pytest.fixture(scope="module")
def networks(tiny_dataset) -> dict[str, tuple[nn.Module, Dataset]]:
    return {
        "convnet": (pruned_convnet(tiny_dataset), tiny_dataset),
        "cnn": (small_cnn(), small_images(tiny_dataset)),
        "rows": (Rows().eval(), tiny_dataset),
        "attention": (Attention().eval(), tiny_dataset),
        "upsampling": (Upsampling().eval(), tiny_dataset),
    }


@pytest.mark.parametrize("name", MACS)
def test_the_macs_that_torch_counts_are_those_counted_by_hand(networks, name):
    model, dataset = networks[name]
    assert count_macs(model, dataset.blank(1)) == sum(MACS[name])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MACS)
def test_the_macs_of_the_layers_of_a_file_are_those_counted_by_hand(networks, name, method):
    model, dataset = networks[name]
    assert [layer.macs for layer in list_layers(shipped(model, method, dataset))] == MACS[name]


@pytest.mark.parametrize("method", METHODS)
def test_the_layers_are_those_of_the_network_with_their_weights_and_zeros(tiny_dataset, method):
    layers = list_layers(convnet_file(method, tiny_dataset))
    model = pruned_convnet(tiny_dataset)
    rows = sparsity_by_layer(model, model)
    expected = [(row["layer"], row["weights"], row["weights"] - row["pruned"]) for row in rows]
    assert [(layer.name, layer.weights, layer.nonzero) for layer in layers] == expected


@pytest.mark.parametrize(
    ("method", "in_int8"), [("none", set()), ("dynamic", {"fc"}), ("static", {"conv1", "conv2", "fc"})]
)
def test_the_runtime_executes_exactly_the_quantized_layers_in_int8(tiny_dataset, method, in_int8):
    layers = list_layers(convnet_file(method, tiny_dataset))
    assert {layer.name for layer in layers if layer.int8} == in_int8


def test_an_8_bit_layer_that_the_runtime_executes_in_float_does_not_count(tiny_dataset):
    model = onnx.load_from_string(convnet_file("static", tiny_dataset))
    producers = {node.output[0]: node for node in model.graph.node}
    _, conv = (node for node in model.graph.node if node.op_type == "Conv")
    activation = producers[producers[conv.input[0]].input[0]]
    assert activation.op_type == "QuantizeLinear"
    conv.input[0] = activation.input[0]
    assert [layer.int8 for layer in list_layers(model.SerializeToString())] == [True, False, True]


@pytest.mark.parametrize("method", METHODS)
def test_running_statistics_and_constants_of_activations_are_not_parameters(networks, method):
    model, dataset = networks["rows"]
    counted, _ = count_parameters(shipped(model, method, dataset))
    assert counted == sum(parameter.numel() for parameter in model.parameters())
