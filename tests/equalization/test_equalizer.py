"""Equalization makes ranges of channels more equal, and changes no bit of the logits of the float32 network."""

from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from lightweight.equalization.equalizer import Equalized, equalize
from lightweight.equalization.reach import measure_reach, prove_bounds
from lightweight.equalization.streams import find_streams
from lightweight.onnx.logits import onnx_logits, pixels, torch_logits
from lightweight.onnx.session import make_inference_session
from lightweight.quantization.parity import logit_error
from lightweight.quantization.post_training import StaticConverter
from tests.examples import noise, quantize, quantize_params

SIZE = 8


class Inverted(nn.Module):
    """Two inverted residual blocks, whose channels differ a hundredfold in size."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 2)
        self.expand, self.depthwise, self.project = (
            nn.ModuleList(nn.Conv2d(*sizes) for _ in range(2))
            for sizes in ((8, 16, 1), (16, 16, 3, 1, 1, 1, 16), (16, 8, 1))
        )
        self.activation = activation()
        with torch.no_grad():
            for layer in (self.stem, *self.expand, *self.depthwise, *self.project):
                scales = torch.logspace(-2, 0, len(layer.weight)).view(-1, 1)
                layer.weight.mul_(scales.view(-1, 1, 1, 1))
                layer.bias.mul_(scales.flatten())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        for expand, depthwise, project in zip(self.expand, self.depthwise, self.project, strict=True):
            features = features + project(self.activation(depthwise(self.activation(expand(features)))))
        return self.head(features.mean((2, 3)))


@cache
def made(activation: type[nn.Module] = nn.ReLU) -> tuple[nn.Module, onnx.ModelProto, Equalized]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Inverted(activation).eval()
    data = noise(size=SIZE)
    model = StaticConverter(network, data, data.train.images, quantize_params("static")).model
    return network, model, equalize(model, lambda: [pixels(data.train.images)])


def run(model: onnx.ModelProto) -> np.ndarray:
    return onnx_logits(make_inference_session(model.SerializeToString(), 1), noise(size=SIZE, number=100).test, 10)


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish])
def test_the_logits_of_the_float32_network_do_not_change_in_any_bit(activation):
    _, model, equalized = made(activation)
    assert equalized.input_factors
    assert run(model).tobytes() == run(equalized.model).tobytes()


def test_every_factor_is_a_power_of_two_and_some_are_not_one():
    for factors in made()[2].input_factors.values():
        assert (np.log2(factors) == np.round(np.log2(factors))).all()
    assert any((factors != 1).any() for factors in made()[2].input_factors.values())


def test_channels_before_depthwise_layers_have_ranges_of_one_size_afterwards():
    _, model, equalized = made()
    (stream,) = [item for item in find_streams(model) if item.readers and "depthwise.0" in item.readers[0].input[1]]
    images = [pixels(noise(size=SIZE).train.images)]
    before, after = (measure_reach(part, [stream], images)[stream.tensors[-1]] for part in (model, equalized.model))
    used = before > before.max() / 32
    assert before[used].max() / before[used].min() > 8
    assert after[used].max() / after[used].min() <= 2


def test_what_reads_and_writes_a_residual_sum_is_scaled_together():
    _, model, equalized = made()
    (stream,) = [item for item in find_streams(model) if item.readers and "head" in item.readers[-1].input[1]]
    assert {node.input[1] for node in stream.writers} == {
        "model.stem.weight", "model.project.0.weight", "model.project.1.weight"
    }  # fmt: skip
    factors = [equalized.input_factors[name] for name in ("expand.0", "expand.1")]
    assert (factors[0] == factors[1]).all()
    assert (equalized.input_factors["head"][0] == factors[0][0].flatten()).all()


def test_a_channel_crosses_a_clip_only_as_far_as_nothing_can_be_clipped():
    _, model, equalized = made(nn.ReLU6)
    bounds = prove_bounds(model)
    crossed = [item for item in find_streams(model) if item.clips and "project" in item.readers[0].input[1]]
    assert crossed
    for stream in crossed:
        name = stream.readers[0].input[1].removeprefix("model.").removesuffix(".weight")
        factors = equalized.input_factors.get(name, np.ones((1, stream.channels, 1, 1)))[0].flatten()
        assert (factors[factors > 1] * bounds[stream.clips[0].input[0]][factors > 1] <= 6).all()
        assert "expand" in stream.writers[0].input[1] or (factors > 1).any()
    assert any("Clip" in reason for reason in equalized.left.values())


def test_a_bound_of_a_channel_is_reached_by_the_worst_inputs_and_never_exceeded():
    weight = np.array([[[[1.0, -2.0]], [[3.0, -4.0]]]], np.float32)
    nodes = [
        onnx.helper.make_node("Clip", ["input", "low", "high"], ["clipped"]),
        onnx.helper.make_node("Conv", ["clipped", "weight", "bias"], ["output"]),
    ]
    values = {"low": np.float32(0), "high": np.float32(6), "weight": weight, "bias": np.float32([0.5])}
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    bound = prove_bounds(onnx.helper.make_model(onnx.helper.make_graph(nodes, "graph", [], [], tensors)))["output"]
    assert 24.5 <= bound[0] < 24.51


def test_streams_that_end_in_another_operator_are_left_with_the_reason():
    reasons = made(nn.Hardswish)[2].left
    assert any("HardSigmoid" in reason for reason in reasons.values())


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_a_quantized_file_is_closer_to_its_network_with_equalization(rounding):
    network, _, _ = made()
    data = noise(size=SIZE)
    expected = torch_logits(network, data, data.test, 32)
    errors = [
        logit_error(expected, onnx_logits(make_inference_session(content, 1), data.test, 32))
        for content in (
            quantize(network, data, "static", equalize=given, rounding=rounding, calibration_images=32)
            for given in (False, True)
        )
    ]
    assert errors[1] < 0.8 * errors[0]
