"""Integer-only C code: its logits are those of the same integers in Python, and nearly those of the compact network."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edge import c_compilers, microcontroller
from edge.c_compilers import HOST, TARGETS, Target, measure
from edge.integer_network import IntegerNetwork, Rescaling, _make_layer, make_integers
from edge.sequence import read_sequence
from edge.weight_coder import encode_weights
from lightweight.codec.container import PackedNetwork
from lightweight.compaction.assembly import assemble
from lightweight.core.errors import InputError
from lightweight.data.dataset import Dataset
from lightweight.onnx.logits import onnx_logits, torch_logits
from lightweight.onnx.session import make_inference_session
from tests.examples import exported, new, noise, trained

needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")


def strided() -> nn.Module:
    """Make convolutions of stride 2 and 3, padding 1 and 0, and windows of 3 by a stride of 2; colours come in."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(6, 5, 2, stride=3), nn.ReLU(),
        nn.Flatten(), nn.Linear(20, 12, bias=False), nn.ReLU(), nn.Linear(12, 3),
    )  # fmt: skip


def averaged() -> nn.Module:
    """Make a convolution whose bytes are averaged over all places, after one that pools before it rectifies."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 7, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(7, 9, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 4),
    )  # fmt: skip


def linear() -> nn.Module:
    """Make linear layers without any convolution."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))


NETWORKS = {
    "strided": (strided, noise(3, 26)),
    "averaged": (averaged, noise(1, 20)),
    "linear": (linear, noise()),
}


def pack_network(network: nn.Module, dataset: Dataset, bits: int = 8) -> PackedNetwork:
    return assemble(exported(network.eval(), dataset), {}, bits)


def integers(network: nn.Module, dataset: Dataset) -> IntegerNetwork:
    return make_integers(read_sequence(pack_network(network, dataset)), dataset.train.images)


def check(target: Target, folder: Path, network: IntegerNetwork, dataset: Dataset) -> str:
    return microcontroller.check(target, folder, dataset.test.images.numpy(), logits(network, dataset))


def logits(network: IntegerNetwork, dataset: Dataset) -> np.ndarray:
    return network.logits(dataset.test.images)


@needs_cc
@pytest.mark.parametrize("name", NETWORKS)
def test_the_c_code_computes_the_logits_of_python(tmp_path, name):
    make, dataset = NETWORKS[name]
    network = integers(make(), dataset)
    microcontroller.write_sources(network, tmp_path)
    assert check(HOST, tmp_path, network, dataset) == "equal for 32"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_integers_are_nearly_the_network(name):
    make, dataset = NETWORKS[name]
    network = make()
    expected = torch_logits(network.eval(), dataset, dataset.test, 64)
    found = logits(integers(network, dataset), dataset)
    scale = (found * expected).sum() / (expected * expected).sum()
    assert np.abs(found / scale - expected).max() < 0.05 * np.abs(expected).max()
    assert np.abs(found).max() > 8_000, "logits use the range that they may"


def test_a_trained_network_stays_as_accurate(tiny_dataset):
    network = trained("tiny", tiny_dataset)
    found = logits(integers(network, tiny_dataset), tiny_dataset)
    session = make_inference_session(pack_network(network, tiny_dataset).to_onnx(), 1)
    floats = onnx_logits(session, tiny_dataset.test, 64)
    assert (found.argmax(1) == floats.argmax(1)).mean() > 0.95


@needs_cc
def test_the_c_code_reads_nothing_beyond_its_numbers_and_no_sum_overflows(tmp_path, monkeypatch):
    make, dataset = NETWORKS["averaged"]
    network = make()
    with torch.no_grad():
        for layer in (network[0], network[3]):
            layer.weight *= torch.rand(layer.weight.shape) < 0.02
    network = integers(network, dataset)
    microcontroller.write_sources(network, tmp_path)
    monkeypatch.setattr(
        c_compilers, "STRICT", (*c_compilers.STRICT, "-fsanitize=address,undefined", "-fno-sanitize-recover")
    )
    check(HOST, tmp_path, network, dataset)


@pytest.mark.parametrize("largest", [32_767.4, 65_535.4, 40_000.0, 1e6])
def test_biases_fit_16_bits(largest):
    sequence = read_sequence(pack_network(averaged(), noise(1, 20)))
    step = replace(sequence.steps[0], biases=np.full(7, largest), codes=np.zeros(7, np.int64))
    layer, _ = _make_layer(step, torch.full((1, 7, 10, 10), largest), 0.0, 0, last=False)
    assert np.abs(layer.biases >> layer.bias_shift).max() <= 32_767
    assert np.abs(layer.biases - largest).max() <= 1 << layer.bias_shift


@needs_cc
def test_code_that_computes_something_else_is_an_error(tmp_path):
    make, dataset = NETWORKS["averaged"]
    network = integers(make(), dataset)
    last = network.layers[-1]
    other = replace(network, layers=[*network.layers[:-1], replace(last, biases=last.biases + 4096)])
    microcontroller.write_sources(other, tmp_path)
    with pytest.raises(InputError, match=r"give different logits for \d+ of 32 images on this machine"):
        check(HOST, tmp_path, network, dataset)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("resnet20", "no sequence of layers: \\w+ reads what came before the last"),
        (
            nn.Sequential(nn.Conv2d(1, 4, 3, groups=1, dilation=2), nn.Flatten(), nn.Linear(2304, 3)),
            "a layer Conv that",
        ),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(2704, 3)), "a layer Sigmoid that"),
    ],
)
def test_a_network_that_is_no_sequence_is_refused_in_one_line(network, message):
    network = new(network) if isinstance(network, str) else network
    with pytest.raises(InputError, match=message) as error:
        read_sequence(pack_network(network, noise()))
    assert "\n" not in str(error.value)


def test_a_residual_network_is_refused_wherever_the_sum_reads_from():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(2704, 3)

        def forward(self, images):
            before = self.first(images).relu()
            return self.last((self.second(before) + before).flatten(1))

    with pytest.raises(InputError, match="no sequence of layers: Add reads what came before the last"):
        read_sequence(pack_network(Residual(), noise()))


def test_rescaling_is_a_multiplication_rounded_half_up():
    codes = np.array([-320, -317, -200, -96])
    values = torch.arange(-40_000, 40_000, 37).reshape(1, 1, 1, -1).expand(1, 4, 1, -1)
    found = Rescaling.fit(codes, 40_000)(values)
    exact = values.double() * torch.from_numpy(2.0 ** (codes / 32)).reshape(1, 4, 1, 1)
    assert (found - exact).abs().max() < 0.5 + exact.abs().max() * 2.0**-13
    with pytest.raises(InputError, match="sums up to 40,000, with"):
        Rescaling.fit(codes + 600, 40_000)


def test_weights_that_are_rare_cost_little_and_noise_costs_its_entropy():
    generator = np.random.default_rng(0)
    zeros = len(encode_weights([np.zeros((100, 100, 1, 1), int)]))
    assert 4 < zeros < 60, "the decoder reads as many bytes as the encoder shifts out, also those that are zero"
    sparse = (generator.random((64, 64, 3, 3)) < 0.02) * generator.choice([-1, 1], (64, 64, 3, 3))
    entropy = 36_864 * (0.98 * -np.log2(0.98) + 0.02 * -np.log2(0.01)) / 8
    assert entropy < len(encode_weights([sparse])) < 1.1 * entropy
    noisy = generator.integers(-1, 2, (64, 64, 3, 3))
    assert len(encode_weights([noisy])) < 1.02 * 36_864 * np.log2(3) / 8


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.core)
def test_the_code_fits_a_microcontroller(tmp_path, target):
    make, dataset = NETWORKS["averaged"]
    microcontroller.write_sources(integers(make(), dataset), tmp_path)
    found = measure(target, tmp_path)
    if found is None:
        pytest.skip(f"needs {target.compiler}")
    assert 0 < found.weights < found.flash < found.weights + 2_500
    assert found.ram < 400 + 7 * 10 * 10 + 20 * 20 + 7 * 9 + 200
    assert found.stack < 400


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.core)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_code_of_a_microcontroller_computes_the_logits_of_python(tmp_path, target, name):
    if missing := target.missing():
        pytest.skip(f"needs {missing}")
    make, dataset = NETWORKS[name]
    network = integers(make(), dataset)
    microcontroller.write_sources(network, tmp_path)
    assert check(target, tmp_path, network, dataset) == "equal for 32"


def test_a_core_without_compiler_or_emulator_is_said():
    missing = replace(TARGETS[0], emulator="qemu-none")
    assert microcontroller.check(missing, None, None, None).startswith("not run: no ")
