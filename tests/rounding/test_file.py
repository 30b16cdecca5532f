"""Rounded weights stand in the file, in the bits that were asked for, and the file is faithful to them."""

from copy import deepcopy

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.onnx.graph import list_layers
from lightweight.onnx.logits import onnx_logits, torch_logits
from lightweight.onnx.session import make_inference_session
from lightweight.onnx.weights import pack_int4, unpack_int4
from lightweight.quantization.parity import logit_error
from tests.examples import pruned_convnet, quantize, quantizer, trained

METHODS = ("dynamic", "static", "int4")


def error(content: bytes, model: torch.nn.Module, dataset) -> float:
    actual = onnx_logits(make_inference_session(content, 1), dataset.val, 256)
    return logit_error(torch_logits(model, dataset, dataset.val, 256), actual)


@pytest.mark.parametrize("method", METHODS)
def test_gptq_and_bias_correction_bring_the_logits_closer_and_cost_no_bytes(tiny_dataset, method):
    model = trained("convnet", tiny_dataset)
    plain = quantize(model, tiny_dataset, method)
    better = quantize(model, tiny_dataset, method, rounding="gptq", bias_correction=True)
    assert error(better, model, tiny_dataset) < 0.9 * error(plain, model, tiny_dataset)
    assert abs(len(better) - len(plain)) < 100


def test_convolutions_of_int4_take_4_bits_and_run_on_8_bit_integers_except_the_first(tiny_dataset):
    layers = list_layers(quantize(trained("convnet", tiny_dataset), tiny_dataset, "int4"))
    convolutions = [layer for layer in layers if layer.name.startswith("conv")]
    assert [layer.bits for layer in convolutions] == [8] + [4] * (len(convolutions) - 1)
    assert all(layer.int8 for layer in convolutions)
    assert all(layer.bits == 4 for layer in layers if layer not in convolutions)


def test_a_convolution_in_4_bits_takes_half_the_bytes_of_one_in_8(tiny_dataset):
    sizes = {}
    for method in ("int4", "static"):
        model = onnx.load_from_string(quantize(trained("convnet", tiny_dataset), tiny_dataset, method))
        names = ("model.conv2.weight_int4", "model.conv2.weight_quantized")
        (stored,) = [item for item in model.graph.initializer if item.name in names]
        sizes[method] = stored.ByteSize()
    assert sizes["int4"] < 0.51 * sizes["static"]


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_pruning_has_set_to_zero_stay_zero(tiny_dataset, method):
    model = pruned_convnet(tiny_dataset)
    content = quantize(model, tiny_dataset, method, rounding="gptq", bias_correction=True)
    zeros = {layer.name: layer.weights - layer.nonzero for layer in list_layers(content)}
    for name, parameter in model.named_parameters():
        if name.endswith(".weight") and parameter.ndim > 1:
            assert zeros[name.removesuffix(".weight")] >= int((parameter == 0).sum())


def test_packed_integers_are_unpacked_as_they_were():
    node = onnx.helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], N=3, K=50, bits=4, block_size=32)
    values = np.random.default_rng(0).integers(-8, 8, (3, 50)).astype(np.int8)
    packed = pack_int4(values, node)
    assert packed.shape == (3, 32)
    np.testing.assert_array_equal(unpack_int4(packed.reshape(3, 2, 16), node), values)


@pytest.mark.parametrize("method", METHODS)
def test_excluded_layers_stay_float32_and_the_others_rounded(tiny_dataset, method):
    maker = quantizer(trained("convnet", tiny_dataset), tiny_dataset, method, rounding="gptq", bias_correction=True)
    converter = maker.make_converter()
    name = list(converter.layers)[-1]
    found = {layer.name: layer.bits for layer in list_layers(maker.serialize(converter, [name]))}
    assert found[name] == 32
    assert all(found[other] < 32 for other in converter.layers if other != name)


def test_a_resumed_run_takes_the_layers_that_its_checkpoint_holds(tiny_dataset):
    model, changes = trained("convnet", tiny_dataset), {"rounding": "gptq", "bias_correction": True}
    first = quantizer(model, tiny_dataset, "static", **changes)
    expected = first.serialize(first.make_converter(), [])
    state = deepcopy(first.rounder.state_dict())
    half = {name: state[name] for name in list(state)[: len(state) // 2]}
    resumed = Checkpointer()
    resumed.state = {"rounding": half}
    second = quantizer(model, tiny_dataset, "static", checkpointer=resumed, **changes)
    assert second.serialize(second.make_converter(), []) == expected
    changed = deepcopy(half)
    next(iter(changed.values()))["integers"].zero_()
    resumed.state = {"rounding": changed}
    third = quantizer(model, tiny_dataset, "static", checkpointer=resumed, **changes)
    assert third.serialize(third.make_converter(), []) != expected


def test_the_number_of_threads_changes_no_bit(tiny_dataset):
    files = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        maker = quantizer(trained("convnet", tiny_dataset), tiny_dataset, "int4", rounding="gptq", bias_correction=True)
        maker.make_converter()
        files.append({name: vars(layer) for name, layer in maker.rounder.rounded.items()})
    torch.set_num_threads(1)
    for name, layer in files[0].items():
        assert all(
            torch.equal(value, files[1][name][key]) if isinstance(value, torch.Tensor) else value == files[1][name][key]
            for key, value in layer.items()
        )


def test_the_table_names_the_worst_layer_first(tiny_dataset):
    maker = quantizer(trained("convnet", tiny_dataset), tiny_dataset, "int4", rounding="gptq")
    maker.make_converter()
    errors = [row["error"] for row in maker.rounder.rows]
    assert errors == sorted(errors, reverse=True)
    assert {row["layer"] for row in maker.rounder.rows} == set(maker.rounder.rounded)
    assert all(row["error"] <= row["nearest_error"] for row in maker.rounder.rows)


@pytest.mark.parametrize("method", METHODS)
def test_every_bias_moves_by_the_shift_of_its_layer(tiny_dataset, method):
    """Also one that is added behind a matrix product, and behind the scaling of a dynamic one."""
    maker = quantizer(trained("convnet", tiny_dataset), tiny_dataset, method, bias_correction=True)
    converter = maker.make_converter()
    before, after = converter.convert([]), converter.convert([])
    maker.rounder.write(after)
    old, new = (
        {item.name: numpy_helper.to_array(item) for item in model.graph.initializer} for model in (before, after)
    )
    assert maker.rounder.rounded
    for name, layer in maker.rounder.rounded.items():
        biases = [bias for bias in old if bias.startswith(f"model.{name}.") and bias.endswith("bias")]
        assert len(biases) == 1
        assert np.abs(layer.shift.numpy()).max() > 0
        np.testing.assert_array_equal(new[biases[0]], old[biases[0]] + layer.shift.numpy())


def test_a_bias_that_several_layers_read_is_left_alone(tiny_dataset):
    maker = quantizer(trained("convnet", tiny_dataset), tiny_dataset, "static", bias_correction=True)
    converter = maker.make_converter()
    shared = converter.convert([])
    bias = next(node for node in shared.graph.node if node.op_type == "Conv").input[2]
    reader = onnx.helper.make_node("Identity", [bias], ["again"])
    shared.graph.node.append(reader)
    before = {item.name: numpy_helper.to_array(item) for item in shared.graph.initializer}[bias].copy()
    maker.rounder.write(shared)
    after = {item.name: numpy_helper.to_array(item) for item in shared.graph.initializer}
    np.testing.assert_array_equal(after[bias], before)
