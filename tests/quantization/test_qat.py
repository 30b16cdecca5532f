"""Quantization-aware training ends in a file of integers that agrees with the trained graph, and keeps zeros."""

from copy import deepcopy
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from lightweight.batchnorm import reestimate_batchnorm
from lightweight.checkpointing import checkpointer as resuming
from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.core.errors import InputError
from lightweight.data.augmentation import OFF
from lightweight.data.dataset import Dataset
from lightweight.networks.factory import build
from lightweight.onnx.graph import list_layers
from lightweight.onnx.logits import onnx_logits, torch_logits
from lightweight.onnx.session import make_inference_session
from lightweight.pruning.groups import prunable_layers
from lightweight.quantization.batchnorm_folding import capture, fold_batchnorm
from lightweight.quantization.converter import Converter
from lightweight.quantization.parity import logit_error
from lightweight.quantization.quantizer import Quantizer
from lightweight.quantization.result import QuantizationResult
from tests.checkpointing.test_checkpointer import Inline, Interruption
from tests.examples import BNNET, noise, prune_in_place, quantizer, trained

ZEROS = 0.5


@cache
def quantized(dataset: Dataset) -> tuple[Quantizer, Converter, QuantizationResult]:
    """Train a network with rounding, half of whose weights are zero before."""
    model = deepcopy(trained(BNNET, dataset))
    prune_in_place(model, amount=ZEROS)
    reestimate_batchnorm(model, dataset, 1000, 256, 0, augmentation=OFF)
    qat = quantizer(model, dataset, "qat", calibration_images=100)
    converter = qat.make_converter()
    return qat, converter, qat.quantize(converter)


def stored(content: bytes) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in onnx.load_from_string(content).graph.initializer}


@pytest.mark.parametrize("name", ["resnet20", "cnn", "tiny", "torchvision/resnet18", "torchvision/mobilenet_v3_small"])
def test_folding_batchnorm_changes_nothing_that_the_network_computes(name):
    model = build(name, channels=1, image_size=32, num_classes=10, small_stem="/" in name)
    images = torch.randn(16, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(images)
    folded = capture(model.eval(), images)
    fold_batchnorm(folded)
    assert not any("batch_norm" in str(node.target) for node in folded.graph.nodes)
    expected = model(images).detach()
    torch.testing.assert_close(folded(images), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_every_layer_runs_on_integers(tiny_dataset):
    layers = list_layers(quantized(tiny_dataset)[2].content)
    assert [layer.name for layer in layers] == ["0", "4", "9", "12"]
    assert all(layer.int8 and layer.bits == 8 for layer in layers)


def test_layers_of_equal_weights_are_told_apart(tiny_dataset):
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    model.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 10)])
    with torch.no_grad():
        for layer in (model[2], model[4], model[7], model[8]):
            layer.weight.zero_()
    qat = quantizer(model, tiny_dataset, "qat", calibration_images=20)
    converter = qat.make_converter()
    content = qat.serialize(converter, [])
    assert [layer.name for layer in list_layers(content)] == ["0", "2", "4", "7", "8", "9"]
    expected = torch_logits(converter.reference([]), tiny_dataset, tiny_dataset.val, 64)
    assert logit_error(expected, onnx_logits(make_inference_session(content, 1), tiny_dataset.val, 64)) < 0.02


def test_a_network_without_such_a_layer_is_refused_before_any_training(tiny_dataset):
    model = nn.Sequential(nn.Flatten(2), nn.Conv1d(1, 10, 784), nn.Flatten())
    qat = quantizer(model, tiny_dataset, "qat")
    qat.fine_tune = None
    with pytest.raises(InputError, match=r"quantize\.method = 'qat': the network has no layer with weights that it"):
        qat.run()


def test_residual_sums_run_on_integers_too(tmp_path):
    data = noise(3, 32)
    qat = quantizer(build("resnet20", 3, 32, 10, False), data, "qat", calibration_images=16)
    content = qat.serialize(qat.make_converter(), [])
    assert all(layer.int8 for layer in list_layers(content))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "executed.onnx")
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    executed = [node.op_type for node in onnx.load(tmp_path / "executed.onnx").graph.node]
    assert executed.count("QLinearAdd") == 9
    assert executed.count("Add") == 1  # of the normalisation


def test_zeros_are_zeros_in_the_integers_of_the_file(tiny_dataset):
    qat, _, result = quantized(tiny_dataset)
    values = stored(result.content)
    for name, module in prunable_layers(qat.model, "both").items():
        integers = values[f"model.{name}.weight_quantized"]
        assert integers.dtype == np.int8
        assert (values[f"model.{name}.weight_zero_point"] == 0).all()
        assert (integers[(module.weight == 0).numpy()] == 0).all()
        assert (module.weight == 0).float().mean() >= ZEROS - 0.01


def test_weights_are_trained_and_rounded_per_channel_within_seven_bits(tiny_dataset):
    qat, _, result = quantized(tiny_dataset)
    values = stored(result.content)
    for name, module in prunable_layers(qat.model, "both").items():
        integers, scale = values[f"model.{name}.weight_quantized"], values[f"model.{name}.weight_scale"]
        assert scale.shape == (len(module.weight),)
        assert np.abs(integers.astype(int)).max() == 63
    assert len(result.history.rows) == 1


def test_steps_by_which_no_cpu_cuts_sums_follow_from_the_weights_at_the_end(tiny_dataset):
    qat = quantizer(deepcopy(trained(BNNET, tiny_dataset)), tiny_dataset, "qat", reduce_range="auto")
    converter = qat.make_converter()
    result, weights = qat.quantize(converter), dict(converter.module.named_parameters())
    values = stored(result.content)
    for name in converter.layers:
        integers, scale = values[f"model.{name}.weight_quantized"].astype(int), values[f"model.{name}.weight_scale"]
        (weight,) = (item.detach().numpy() for key, item in weights.items() if key.endswith(f"{name}.weight"))
        rows = (weight if weight.ndim == 2 else weight.transpose(0, 2, 3, 1)).reshape(len(weight), -1)
        even = rows.shape[1] // 2 * 2
        sums = np.abs(rows[:, :even:2] + rows[:, 1:even:2])
        reach = np.maximum(sums.max(axis=1), np.abs(rows).max(axis=1))
        np.testing.assert_allclose(scale, reach / 127, rtol=1e-5)
        assert 63 < np.abs(integers).max() <= 127
    assert result.logit_error < 0.05


def test_the_file_agrees_with_the_trained_graph(tiny_dataset):
    qat, converter, result = quantized(tiny_dataset)
    val = tiny_dataset.val
    expected = torch_logits(converter.reference([]), tiny_dataset, val, 64)
    actual = onnx_logits(make_inference_session(result.content, 1), val, 64)
    assert logit_error(expected, actual) < 0.03
    assert (expected.argmax(1) == actual.argmax(1)).mean() > 0.98
    assert logit_error(torch_logits(qat.model, tiny_dataset, val, 64), actual) > 0.03, "it has trained"


def test_an_excluded_layer_stays_float32_and_takes_no_other_with_it(tiny_dataset):
    qat, converter, _ = quantized(tiny_dataset)
    content = qat.serialize(converter, ["4"])
    assert [layer.int8 for layer in list_layers(content)] == [True, False, True, True]
    assert [layer.bits for layer in list_layers(content)] == [8, 32, 8, 8]
    expected = torch_logits(converter.reference(["4"]), tiny_dataset, tiny_dataset.val, 64)
    assert logit_error(expected, onnx_logits(make_inference_session(content, 1), tiny_dataset.val, 64)) < 0.03


def test_validation_moves_no_range(tiny_dataset):
    module = quantized(tiny_dataset)[1].reference([])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch_logits(module, tiny_dataset, tiny_dataset.val, 64)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module.train()
    module(10 * torch.randn(4, 1, 28, 28))
    assert not all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_an_interrupted_training_ends_in_the_same_bytes(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(resuming, "MAX_LOST_SECONDS", 0.0)
    model, images = trained("tiny", tiny_dataset), 40

    def run(folder, stop: int | None) -> bytes:
        checkpointer = Checkpointer(folder, "quantize", Inline(), lambda line: None)
        tick, calls = checkpointer.save_if_due, []

        def ticking(where: str) -> None:
            tick(where)
            calls.append(where)
            if len(calls) == stop:
                raise Interruption

        checkpointer.save_if_due = ticking
        qat = quantizer(model, tiny_dataset, "qat", checkpointer=checkpointer, calibration_images=images)
        return qat.run().content

    expected = run(tmp_path / "whole", None)
    with pytest.raises(Interruption):
        run(tmp_path / "cut", 2)
    assert run(tmp_path / "cut", None) == expected


class Odd(nn.Module):
    """A layer used twice, one on rows of patches with a norm across them, weights under another name or computed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 7, stride=7, padding=0), nn.BatchNorm2d(8)
        self.twice, self.twice_norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.rows, self.rows_norm = nn.Linear(16, 8), nn.BatchNorm1d(8)
        self.kernel = nn.Parameter(torch.randn(8, 8, 1, 1))
        self.head, self.plain = nn.Linear(64, 10), nn.BatchNorm1d(10, affine=False)

    def forward(self, images):
        seen = torch.relu(self.norm(self.stem(images)))
        for _ in range(2):
            seen = torch.relu(self.twice_norm(self.twice(seen)))
        seen = torch.nn.functional.conv2d(seen, self.kernel - self.kernel.mean())
        return self.plain(self.head(self.rows_norm(self.rows(seen.flatten(2))).flatten(1)))


@pytest.mark.slow
def test_layers_that_do_not_own_their_weights_alone_stay_as_they_are(tiny_dataset):
    torch.manual_seed(0)
    model, images = Odd(), tiny_dataset.normalize(tiny_dataset.val.images)
    with torch.no_grad():
        for _ in range(3):
            model(images)
    model.eval()
    folded = capture(model, images)
    fold_batchnorm(folded)
    torch.testing.assert_close(folded(images), model(images), rtol=1e-3, atol=1e-4)
    qat = quantizer(model, tiny_dataset, "qat", calibration_images=50)
    converter = qat.make_converter()
    layers = list_layers(qat.serialize(converter, []))
    bits = {layer.name: layer.bits for layer in layers}
    assert list(converter.layers) == ["stem", "rows", "head"]
    assert sorted(layer.bits for layer in layers) == [8, 8, 8, 32, 32, 32], "two uses and a computed kernel"
    assert bits["stem"] == bits["rows"] == bits["head"] == 8


class Tokens(nn.Module):
    """Two linear layers over tokens, with a norm and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(1, 8, 7, 7), nn.LayerNorm(8)
        self.wide, self.narrow, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 10)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.head((tokens + self.narrow(self.wide(self.norm(tokens)).relu())).mean(1))


def test_linear_layers_over_tokens_run_on_integers(tiny_dataset):
    torch.manual_seed(0)
    qat = quantizer(Tokens().eval(), tiny_dataset, "qat", calibration_images=50)
    converter = qat.make_converter()
    for excluded in ([], ["wide"]):
        content = qat.serialize(converter, excluded)
        in_int8 = {layer.name for layer in list_layers(content) if layer.int8}
        assert in_int8 == {"patches", "wide", "narrow", "head"} - set(excluded)
        expected = torch_logits(converter.reference(excluded), tiny_dataset, tiny_dataset.val, 64)
        assert logit_error(expected, onnx_logits(make_inference_session(content, 1), tiny_dataset.val, 64)) < 0.03


@pytest.mark.parametrize("model", [pytest.param(Odd, marks=pytest.mark.slow), Tokens])
def test_low_coverage_is_warned_of_before_the_training(tiny_dataset, model):
    events: list[str] = []
    torch.manual_seed(0)
    qat = quantizer(model().eval(), tiny_dataset, "qat", calibration_images=20, log=events.append)

    def fine_tune(*_) -> list:
        events.append("training")
        return []

    qat.fine_tune = fine_tune
    qat.make_converter()
    *before, _ = events
    assert [line.partition(" of the MACs")[0] for line in before] == ["warning: less than 90%"] * (model is Odd)
    assert events[-1] == "training"


def test_training_that_ruins_the_model_does_not_pass_the_gate(tiny_dataset):
    model, changes = deepcopy(trained("tiny", tiny_dataset)), {"calibration_images": 50, "max_logit_error": 1e9}
    with pytest.raises(InputError, match="max_accuracy_drop"):
        quantizer(model, tiny_dataset, "qat", lr=5.0, **changes).run()


class Choosing(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :10] if images.sum() > 0 else images.flatten(1)[:, 10:20]


def test_a_network_that_cannot_be_captured_is_one_line(tiny_dataset):
    with pytest.raises(InputError, match="The network cannot be captured as a graph: "):
        quantizer(Choosing(), tiny_dataset, "qat").run()
