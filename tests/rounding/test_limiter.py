"""Files rounded by `auto` give the same logits whether or not a CPU cuts sums of products, by every method."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from lightweight.onnx.logits import onnx_logits
from lightweight.onnx.weights import find_weights, layer_name
from lightweight.rounding.limiter import SumLimiter
from lightweight.rounding.saturation import all_neighbours, saturates
from tests.examples import pruned_convnet, quantize, quantizer

EXACT = (
    "session.x64quantprecision"  # ONNX Runtime's own way without saturation: kernels for two uint8, at half the speed
)


def logits(content: bytes, dataset, exact: bool) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry(EXACT, str(int(exact)))
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return onnx_logits(session, dataset.val, batch_size=64)


def saturating_layers(content: bytes) -> set[str]:
    model, found = onnx.load_from_string(content), set()
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    for node, name in find_weights(model):
        values, attributes = stored[name], {item.name: item.i for item in node.attribute}
        kind = node.op_type if node.op_type == "Conv" or attributes.get("transB") else "MatMul"
        rows = values.T if kind == "MatMul" else values.reshape(len(values), -1)
        if values.dtype == np.int8:
            orders = all_neighbours(kind, values.shape, attributes.get("group", 1))
            found |= {layer_name(name) for order in orders if saturates(rows, order).any()}
    return found


@pytest.mark.parametrize("method", ["dynamic", "static", "qat"])
def test_no_sum_saturates_by_auto_at_8_bits_and_logits_do_not_depend_on_the_kernels(tiny_dataset, method):
    files = {
        mode: quantize(pruned_convnet(tiny_dataset), tiny_dataset, method, reduce_range=mode)
        for mode in (False, "auto")
    }
    assert saturating_layers(files[False])
    assert not saturating_layers(files["auto"])
    weights = [numpy_helper.to_array(item) for item in onnx.load_from_string(files["auto"]).graph.initializer]
    assert max(np.abs(item.astype(int)).max() for item in weights if item.dtype == np.int8) > 64
    assert (logits(files["auto"], tiny_dataset, exact=False) == logits(files["auto"], tiny_dataset, exact=True)).all()


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_layers_that_need_no_limit_are_as_without_it_and_the_others_are_told(tiny_dataset, method):
    auto = quantizer(pruned_convnet(tiny_dataset), tiny_dataset, method, reduce_range="auto", max_logit_error=1e9)
    result = auto.run()
    plain = quantize(pruned_convnet(tiny_dataset), tiny_dataset, method, reduce_range=False)
    stored = [
        {item.name: numpy_helper.to_array(item) for item in onnx.load_from_string(content).graph.initializer}
        for content in (plain, result.content)
    ]
    changed = saturating_layers(plain)
    for name, values in stored[0].items():
        assert np.array_equal(values, stored[1][name]) == (
            layer_name(name.replace("_scale", "_quantized")) not in changed
        )
    assert {layer.name for layer in result.coverage if layer.step > 1 or layer.moved} == changed
    assert f"times as wide in {len(changed)} of " in result.describe(method) or len(changed) == 1


def test_pruned_weights_stay_zero(tiny_dataset):
    model = pruned_convnet(tiny_dataset)
    content = onnx.load_from_string(quantize(model, tiny_dataset, "static", reduce_range="auto"))
    zeros = {name: weight.detach().numpy() == 0 for name, weight in model.named_parameters() if weight.ndim > 1}
    found = 0
    for item in content.graph.initializer:
        if item.name.endswith("weight_quantized"):
            values, zero = (
                numpy_helper.to_array(item),
                zeros[item.name.removesuffix("_quantized").removeprefix("model.")],
            )
            assert not values[zero if values.shape == zero.shape else zero.T].any()
            found += zero.any()
    assert found


@pytest.mark.parametrize(
    ("operator", "groups", "channels", "changes"),
    [("Conv", 4, 1, False), ("Conv", 2, 2, True), ("Conv", 1, 4, True), ("ConvTranspose", 1, 4, False)],
)
def test_operator_and_groups_decide_whether_there_are_neighbours(operator, groups, channels, changes):
    weight, name = np.ones((4, channels, 3, 3), np.float32), "model.conv.weight"
    tensors = {
        f"{name}_quantized": np.full(weight.shape, 127, np.int8),
        f"{name}_scale": np.full(4, 1 / 127, np.float32),
    }
    stored = [numpy_helper.from_array(values, key) for key, values in tensors.items()]
    nodes = [
        helper.make_node("DequantizeLinear", list(tensors), ["weight"], axis=0),
        helper.make_node(operator, ["image", "weight"], ["sums"], group=groups),
    ]
    model = helper.make_model(helper.make_graph(nodes, "layer", [], [], stored))
    source = helper.make_graph([], "layer", [], [], [numpy_helper.from_array(weight, name)])
    limiter = SumLimiter(helper.make_model(source))
    limiter.limit(model)
    integers, scale = map(numpy_helper.to_array, model.graph.initializer)
    assert ("conv" in limiter.changes) == changes
    assert (integers == (64 if changes else 127)).all()
    np.testing.assert_allclose(integers * scale[:, None, None, None], weight, rtol=1e-6)
