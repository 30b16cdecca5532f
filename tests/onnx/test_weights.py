"""Weights are found by the structure of the graph and counted as PyTorch counts them."""

from dataclasses import replace

import onnx
import pytest

from lightweight.onnx.graph import list_layers
from lightweight.onnx.weights import count_parameters
from tests.examples import METHODS, convnet_file, pruned_convnet, shipped, small_cnn, small_images


@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_the_learned_ones_of_the_model_without_settings_of_the_quantizer(tiny_dataset, method):
    learned = list(pruned_convnet(tiny_dataset).parameters())
    expected = (sum(value.numel() for value in learned), sum(int(value.count_nonzero()) for value in learned))
    assert count_parameters(convnet_file(method, tiny_dataset)) == expected


def rename_tensors(content: bytes) -> bytes:
    """Number the tensors that are stored in a file, but for the two that normalise the input."""
    model = onnx.load_from_string(content)
    stored = [item.name for item in model.graph.initializer if item.name not in ("offset", "scale")]
    names = {name: f"tensor_{number}" for number, name in enumerate(stored)}
    for item in model.graph.initializer:
        item.name = names.get(item.name, item.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    return model.SerializeToString()


@pytest.mark.parametrize("method", METHODS)
def test_the_names_of_tensors_do_not_matter(tiny_dataset, method):
    content = shipped(small_cnn(), method, small_images(tiny_dataset))
    renamed = rename_tensors(content)
    assert count_parameters(renamed) == count_parameters(content)
    layers = [replace(layer, name="") for layer in list_layers(content)]
    assert [replace(layer, name="") for layer in list_layers(renamed)] == layers
    assert [layer.name for layer in list_layers(renamed)] != [layer.name for layer in list_layers(content)]
