"""Quantized files are small, reproducible and faithful, and those that are not faithful do not pass the gate."""

import hashlib
import json
from collections.abc import Collection
from copy import deepcopy
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from lightweight.core.errors import InputError
from lightweight.core.files import Table
from lightweight.core.params import load_params
from lightweight.data.dataset import Split
from lightweight.data.dataset_file import save_dataset
from lightweight.networks.model_file import ModelFile, save_model
from lightweight.onnx.graph import list_layers
from lightweight.onnx.logits import onnx_logits, torch_logits
from lightweight.onnx.session import make_inference_session
from lightweight.onnx.shared_biases import rename_shared_biases
from lightweight.onnx.weights import unpack_int4
from lightweight.pruning.groups import prunable_layers
from lightweight.quantization import post_training
from lightweight.quantization import quantizer as quantization
from lightweight.quantization.converter import Converter
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.parity import accuracy, check_parity, logit_error
from tests.examples import (
    METHODS,
    convnet_file,
    exported,
    exported_once,
    noise,
    pruned_convnet,
    quantize,
    quantize_params,
    quantizer,
    shipped,
    small_cnn,
    small_images,
    without_test_split,
)

INT8_METHODS = ("dynamic", "static")
ALL = (*METHODS, "qat")
ELSEWHERE = """
import hashlib, sys
from pathlib import Path
from lightweight.networks.model_file import load_model
from lightweight.data.dataset_file import load_dataset
from tests.examples import METHODS, shipped
model, dataset = load_model(Path(sys.argv[1])).model, load_dataset(Path(sys.argv[2]))
print(*(hashlib.sha256(shipped(model, method, dataset)).hexdigest() for method in (*METHODS, "qat")))
"""


def tensors(content: bytes) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in onnx.load_from_string(content).graph.initializer}


def logits(content: bytes, split: Split) -> np.ndarray:
    return onnx_logits(make_inference_session(content, threads=1), split, batch_size=64)


@pytest.fixture(scope="module")
def expected(tiny_dataset) -> np.ndarray:
    """The logits of the model on validation."""
    return torch_logits(pruned_convnet(tiny_dataset), tiny_dataset, tiny_dataset.val, 64)


@pytest.fixture(scope="module")
def damaged(tiny_dataset) -> np.ndarray:
    """The logits of a file whose last layer does not hold the weights of the model."""
    model = deepcopy(exported(pruned_convnet(tiny_dataset), tiny_dataset))
    (weight,) = (item for item in model.graph.initializer if item.name == "model.fc.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), weight.name))
    return logits(model.SerializeToString(), tiny_dataset.val)


@pytest.fixture(scope="module")
def elsewhere(tiny_dataset, start_python, tmp_path_factory) -> dict[str, str]:
    """The digest of each file, made by another process at another place."""
    home = tmp_path_factory.mktemp("elsewhere")
    arguments = {"channels": 1, "image_size": 28, "num_classes": 10, "small_stem": False}
    save_model(home / "model", ModelFile(pruned_convnet(tiny_dataset), "convnet", arguments))
    save_dataset(home / "data", tiny_dataset)
    environment = {"PYTHONHASHSEED": "1", "HOME": str(home), "TMPDIR": str(home), "USER": "somebody"}
    process = start_python(ELSEWHERE, home / "model", home / "data", **environment)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return dict(zip(ALL, output.split(), strict=True))


@pytest.mark.parametrize("method", INT8_METHODS)
def test_a_file_of_8_bit_weights_has_a_quarter_of_the_size(tiny_dataset, method):
    small = small_images(tiny_dataset)
    ratio = len(shipped(small_cnn(), "none", small)) / len(shipped(small_cnn(), method, small))
    assert 3.8 < ratio < 4


@pytest.mark.parametrize("method", METHODS)
def test_two_calls_give_the_same_bytes(tiny_dataset, method):
    again = quantize(pruned_convnet(tiny_dataset), tiny_dataset, method)
    assert again == convnet_file(method, tiny_dataset)


@pytest.mark.parametrize("method", ALL)
def test_another_process_at_another_place_gives_the_same_bytes(tiny_dataset, elsewhere, method):
    assert hashlib.sha256(convnet_file(method, tiny_dataset)).hexdigest() == elsewhere[method]


@pytest.mark.parametrize("method", METHODS)
def test_the_given_model_is_not_changed(tiny_dataset, method):
    model = deepcopy(exported(pruned_convnet(tiny_dataset), tiny_dataset))
    before = model.SerializeToString(deterministic=True)
    with patch.object(post_training, "export_onnx", lambda *_: model):
        quantizer(pruned_convnet(tiny_dataset), tiny_dataset, method).run()
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(("method", "kinds"), [("dynamic", "linear"), ("static", "both")])
def test_weights_of_the_chosen_layers_become_int8_with_a_scale_per_output_channel(tiny_dataset, method, kinds):
    stored = tensors(convnet_file(method, tiny_dataset))
    chosen = prunable_layers(pruned_convnet(tiny_dataset), kinds)
    assert {name for name, value in stored.items() if value.dtype == np.int8 and value.ndim > 1} == {
        f"model.{name}.weight_quantized" for name in chosen
    }
    for name, module in chosen.items():
        assert stored[f"model.{name}.weight_scale"].shape == (len(module.weight),)


@pytest.mark.parametrize("method", INT8_METHODS)
def test_quantized_weights_differ_from_the_originals_by_at_most_half_a_step_and_pruned_ones_stay_zero(
    tiny_dataset, method
):
    stored = tensors(convnet_file(method, tiny_dataset))
    for name, module in prunable_layers(
        pruned_convnet(tiny_dataset), "both" if method == "static" else "linear"
    ).items():
        stem, weight = f"model.{name}.weight", module.weight.detach().flatten(1).numpy()
        integers = stored[f"{stem}_quantized"]
        integers = integers.T if integers.shape != module.weight.shape else integers.reshape(weight.shape)
        scale, zero = (stored[f"{stem}_{setting}"][:, None] for setting in ("scale", "zero_point"))
        assert np.abs((integers - zero.astype(int)) * scale - weight).max() <= 0.501 * scale.max()
        assert (integers == zero)[weight == 0].all()


def test_static_quantization_leaves_the_input_normalisation_in_float(tiny_dataset):
    nodes = onnx.load_from_string(convnet_file("static", tiny_dataset)).graph.node
    (offset,) = (node for node in nodes if "offset" in node.input)
    (scale,) = (node for node in nodes if "scale" in node.input)
    assert "input" in offset.input
    assert offset.output[0] in scale.input


def test_many_layers_that_share_a_constant_bias_can_be_quantized():
    norms = [module for _ in range(10) for module in (nn.GroupNorm(2, 4), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(1, 4, 7, 7), *norms, nn.Flatten(), nn.Linear(64, 10)).eval()
    content = quantize(model, noise(), "static", calibration_images=8)
    assert all(layer.int8 for layer in list_layers(content))
    images = noise().val
    expected = torch_logits(model, noise(), images, 32)
    assert logit_error(expected, onnx_logits(make_inference_session(content, 1), images, 32)) < 0.1


def test_a_shared_bias_keeps_its_name_unless_a_copy_of_it_would_be_another_tensor():
    def renamed(other: str) -> list[str]:
        nodes = [helper.make_node("Gemm", ["x", "w", "val_1"], [name]) for name in ("a", "b", other)]
        tensors = [numpy_helper.from_array(np.zeros((2,), np.float32), name) for name in ("w", "val_1")]
        model = helper.make_model(helper.make_graph(nodes, "graph", [], [], tensors))
        rename_shared_biases(model)
        assert len({node.input[2] for node in model.graph.node}) == 1
        return [item.name for item in model.graph.initializer]

    assert renamed("val_12") == renamed("val_2") == ["w", "val_1"]
    assert renamed("val_11") == ["w", "val_1_shared"]


def test_static_activations_are_uint8(tiny_dataset):
    content = convnet_file("static", tiny_dataset)
    stored, nodes = tensors(content), onnx.load_from_string(content).graph.node
    zero_points = [stored[node.input[2]] for node in nodes if node.op_type == "QuantizeLinear"]
    assert len(zero_points) >= 4
    assert {value.dtype for value in zero_points} == {np.dtype(np.uint8)}


def test_a_seed_draws_the_calibration_images(tiny_dataset):
    def made(seed: int, number: int) -> bytes:
        return quantize(pruned_convnet(tiny_dataset), tiny_dataset, "static", seed, calibration_images=number)

    assert made(1, 4) == made(1, 4)
    assert made(1, 4) != made(2, 4)
    assert made(1, 300) == made(2, 10_000)


def test_calibration_sees_training_images_only(tiny_dataset):
    white = Split(torch.full_like(tiny_dataset.val.images, 255), tiny_dataset.val.labels)
    other = replace(tiny_dataset, val=white, test=white)
    assert quantize(pruned_convnet(tiny_dataset), other, "static") == convnet_file("static", tiny_dataset)


@pytest.mark.parametrize(
    ("method", "least", "most"),
    [("none", 0, 1e-5), ("fp16", 1e-5, 0.002), ("dynamic", 1e-4, 0.02), ("static", 1e-4, 0.05), ("int4", 1e-3, 0.05)],
)
def test_a_faithful_file_passes_the_gate(tiny_dataset, expected, method, least, most):
    actual = logits(convnet_file(method, tiny_dataset), tiny_dataset.val)
    error, drop = check_parity(expected, actual, tiny_dataset.val, quantize_params(method))
    assert least <= error < most
    assert abs(drop) <= 0.05


@pytest.mark.parametrize("method", METHODS)
def test_a_file_with_other_weights_fails_the_gate_by_its_logits(tiny_dataset, expected, damaged, method):
    params = quantize_params(method, max_accuracy_drop=1.0)
    with pytest.raises(InputError, match=r"quantize\.max_logit_error"):
        check_parity(expected, damaged, tiny_dataset.val, params)


def test_a_file_with_other_weights_fails_the_gate_by_its_accuracy(tiny_dataset, expected, damaged):
    params = quantize_params("dynamic", max_logit_error=100.0)
    with pytest.raises(InputError, match=r"quantize\.max_accuracy_drop = 0\.05"):
        check_parity(expected, damaged, tiny_dataset.val, params)


@pytest.mark.parametrize("method", METHODS)
def test_logits_that_are_not_numbers_fail_the_gate(tiny_dataset, expected, method):
    actual = expected.copy()
    actual[0, 0] = np.nan
    params = quantize_params(method, max_logit_error=1e9, max_accuracy_drop=1.0)
    with pytest.raises(InputError, match=r"quantize\.max_logit_error"):
        check_parity(expected, actual, tiny_dataset.val, params)


def test_a_float_file_must_agree_to_rounding_whatever_the_limit_for_8_bits(tiny_dataset, expected):
    params = quantize_params("none", max_logit_error=0.1)
    error, _ = check_parity(expected, expected * np.float32(1 + 5e-5), tiny_dataset.val, params)
    assert error == pytest.approx(5e-5, rel=0.1)
    with pytest.raises(InputError, match=r"quantize\.max_logit_error"):
        check_parity(expected, expected * np.float32(1 + 5e-4), tiny_dataset.val, params)


def test_the_logit_error_is_the_root_mean_square_of_the_difference_over_that_of_the_logits():
    expected = np.array([[3.0, 0.0], [0.0, 4.0]])
    assert logit_error(expected, expected) == 0
    actual = expected + np.array([[0.0, 0.5], [0.0, 0.0]])
    assert logit_error(expected, actual) == pytest.approx(0.1)
    assert logit_error(10 * expected, 10 * actual) == pytest.approx(0.1)


@pytest.mark.parametrize(("right_before", "right_after", "drop"), [(8, 6, 0.2), (6, 8, -0.2), (5, 5, 0.0)])
def test_the_accuracy_drop_is_the_share_of_labels_lost_and_its_limit_is_included(right_before, right_after, drop):
    split = Split(torch.zeros(10, 1, 8, 8), torch.zeros(10, dtype=torch.int64))
    before, after = (np.eye(2)[[0] * right + [1] * (10 - right)] for right in (right_before, right_after))
    params = {"max_logit_error": 100.0, "max_accuracy_drop": max(drop, 0)}
    assert check_parity(before, after, split, quantize_params("dynamic", **params))[1] == pytest.approx(drop)


def test_an_accuracy_drop_beyond_the_limit_fails_the_gate():
    split = Split(torch.zeros(10, 1, 8, 8), torch.zeros(10, dtype=torch.int64))
    params = quantize_params("dynamic", max_logit_error=100.0, max_accuracy_drop=0.05)
    with pytest.raises(InputError, match=r"max_accuracy_drop = 0\.05: exceeded: 0\.1 "):
        check_parity(np.eye(2)[[0] * 10], np.eye(2)[[0] * 9 + [1]], split, params)


@pytest.mark.parametrize(("method", "least", "most"), [("fp16", 1.95, 2.0), ("int4", 6.0, 8.0)])
def test_fewer_bits_take_fewer_bytes(tiny_dataset, method, least, most):
    small = small_images(tiny_dataset)
    ratio = len(shipped(small_cnn(), "none", small)) / len(shipped(small_cnn(), method, small))
    assert least < ratio < most


def test_half_precision_keeps_the_pixels_and_the_logits_in_float32(tiny_dataset):
    model = onnx.load_from_string(convnet_file("fp16", tiny_dataset))
    assert {item.type.tensor_type.elem_type for item in (*model.graph.input, *model.graph.output)} == {
        TensorProto.FLOAT
    }
    kinds = {item.name: item.data_type for item in model.graph.initializer}
    assert {kinds["offset"], kinds["scale"]} == {TensorProto.FLOAT}
    assert kinds["model.fc.weight"] == TensorProto.FLOAT16


def test_int4_weights_are_what_rounding_in_blocks_of_32_makes_of_them(tiny_dataset):
    weight = pruned_convnet(tiny_dataset).fc.weight.detach().numpy()
    content = convnet_file("int4", tiny_dataset)
    (node,) = (node for node in onnx.load_from_string(content).graph.node if node.op_type == "MatMulNBits")
    stored, integers = tensors(content), unpack_int4(tensors(content)[node.input[1]], node)
    scales = stored[node.input[2]].reshape(len(weight), -1).repeat(32, axis=1)[:, : weight.shape[1]]
    assert integers.shape == weight.shape
    assert np.abs(integers * scales - weight).max() <= 1.01 * np.abs(scales).max()
    assert np.corrcoef((integers * scales).ravel(), weight.ravel())[0, 1] > 0.98
    assert (integers[weight == 0] == 0).all()


@pytest.mark.parametrize("method", ["fp16", "dynamic", "static", "int4"])
def test_a_kept_layer_stays_as_it_is_and_the_others_do_not(tiny_dataset, method):
    method_quantizer = quantizer(small_cnn(), small_images(tiny_dataset), method)
    converter = method_quantizer.make_converter()
    files = (method_quantizer.serialize(converter, stay) for stay in ([], ["fc1"]))
    whole, excluded = ({layer.name: layer.bits for layer in list_layers(content)} for content in files)
    assert whole["fc1"] < 32 == excluded["fc1"]
    assert {name: bits for name, bits in whole.items() if name != "fc1"} == {
        name: bits for name, bits in excluded.items() if name != "fc1"
    }


@pytest.mark.parametrize(("method", "number"), [("static", 3), ("dynamic", 1)])
def test_reduced_range_leaves_one_bit_of_headroom(tiny_dataset, method, number):
    for reduce_range, largest in ((True, 64), (False, 127)):
        content = quantize(pruned_convnet(tiny_dataset), tiny_dataset, method, reduce_range=reduce_range)
        weights = [value for name, value in tensors(content).items() if name.endswith("weight_quantized")]
        assert len(weights) == number
        assert max(int(np.abs(value.astype(int)).max()) for value in weights) in (largest, largest - 1)


def test_a_network_without_linear_layers_is_refused_by_a_method_for_them(tiny_dataset):
    model = nn.Sequential(nn.Conv2d(1, 10, 28), nn.Flatten())
    with pytest.raises(InputError) as error:
        quantizer(model, tiny_dataset, "dynamic").run()
    assert str(error.value) == (
        "params.yaml: quantize.method = 'dynamic': the network has no linear layer that it could convert"
    )


def test_the_method_of_calibration_and_its_percentile_reach_the_file(tiny_dataset):
    model, methods = pruned_convnet(tiny_dataset), (("minmax", 99.0), ("percentile", 90.0), ("percentile", 99.9))
    files = {
        quantize(model, tiny_dataset, "static", calibration=method, percentile=share, calibration_images=50)
        for method, share in methods
    }
    assert len(files) == 3


def test_a_budget_that_the_gate_would_refuse_is_refused_before_any_work(tmp_path):
    path = tmp_path / "params.yaml"
    content = quantize_params("static").model_dump() | {"max_drop": 0.06}
    path.write_text(json.dumps({"quantize": content}))
    with pytest.raises(InputError) as error:
        load_params(path, quantize=QuantizeParams)
    rule = "must be at least max_drop, 0.06: a file that loses more fails the stage"
    assert str(error.value) == f"{path}: quantize.max_accuracy_drop = 0.05: {rule}"
    for allowed in (None, 0.05):
        path.write_text(json.dumps({"quantize": content | {"max_drop": allowed}}))
        assert load_params(path, quantize=QuantizeParams).quantize.max_drop == allowed


def test_layers_go_back_until_the_loss_on_validation_is_inside_the_budget(tiny_dataset):
    model = pruned_convnet(tiny_dataset)
    tables: dict[str, Table] = {}
    with exported_once():
        result = quantizer(model, without_test_split(tiny_dataset), "static", max_drop=0.0).run(tables.update)
    before = torch_logits(model, tiny_dataset, tiny_dataset.val, 64)
    assert accuracy(logits(result.content, tiny_dataset.val), tiny_dataset.val) >= accuracy(before, tiny_dataset.val)
    assert {layer.name for layer in list_layers(result.content) if layer.bits == 32} == set(result.excluded)
    assert tables["fallback"][1][0]["kind"] == "all"


@pytest.mark.parametrize(("loss", "excluded"), [("conv1", ["conv1"]), ("nothing", []), ("all", None)])
def test_what_a_budget_keeps_is_what_the_file_loses_by(tiny_dataset, loss, excluded):
    """Rounding a layer, nothing, or the rest of the network ruins the predictions of these files."""
    model, tables = pruned_convnet(tiny_dataset), {}
    ruined = quantizer(model, tiny_dataset, "static", max_drop=0.1, max_accuracy_drop=0.1)
    serialize = ruined.serialize

    def ruin(converter: Converter, stay: Collection[str]) -> bytes:
        content = onnx.load_from_string(serialize(converter, stay))
        if loss == "all" or (loss not in stay and loss != "nothing"):
            (scale,) = (item for item in content.graph.initializer if item.name == "scale")
            scale.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(scale), "scale"))
        return content.SerializeToString()

    ruined.serialize = ruin
    with exported_once():
        if excluded is None:
            rule = r"quantize\.max_drop = 0\.1: cannot be met: with every layer in float32"
            with pytest.raises(InputError, match=rule):
                ruined.run(tables.update)
            assert [row["kind"] for row in tables["fallback"][1]] == ["all"] + ["only"] * 3 + ["excluded"] * 3
        else:
            assert ruined.run().excluded == excluded


def test_the_gate_names_the_images_that_are_farthest_off(tiny_dataset, expected):
    actual = expected.copy()
    actual[7] = -10 * actual[7]
    with pytest.raises(InputError) as error:
        check_parity(expected, actual, tiny_dataset.val, quantize_params("static"))
    worst = f"7 ({expected[7].argmax()} became {actual[7].argmax()}), "
    assert f"farthest off (index, class in model and file): {worst}" in str(error.value)


@pytest.mark.parametrize(("reduce_range", "warned"), [(True, False), (False, True), ("auto", False)])
def test_a_cpu_that_saturates_is_warned_of_unless_the_range_is_reduced(tiny_dataset, monkeypatch, reduce_range, warned):
    monkeypatch.setattr(quantization, "int8_saturates", lambda: True)
    model, log = pruned_convnet(tiny_dataset), []
    dynamic = quantizer(model, tiny_dataset, "dynamic", log=log.append, reduce_range=reduce_range)
    dynamic.check(convnet_file("dynamic", tiny_dataset), model)
    assert [line.startswith("Warning: sums of 8-bit products saturate") for line in log] == ([True] if warned else [])
