"""A network comes back from its file, bit for bit; every damaged file is refused with a line that says so."""

import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

from lightweight.codec.container import HEADER, PackedNetwork, pack, take_apart, unpack
from lightweight.codec.reading import load_network
from lightweight.codec.scales import nearest_codes, scales_of
from lightweight.codec.tensors import CodedTensor
from lightweight.core.errors import InputError
from lightweight.networks.factory import build
from lightweight.onnx.export import CLASSES_KEY, INPUT_KEY, NORMALIZATION, export_onnx
from lightweight.onnx.session import check_and_load, compute_logits, make_inference_session
from lightweight.onnx.structure import check_structure
from tests.examples import BNNET, exported, new, noise

SLOW = [pytest.param(f"torchvision/{name}", marks=pytest.mark.slow) for name in ("mobilenet_v3_small", "vit_b_16")]


def small_model() -> onnx.ModelProto:
    """Export a network of convolutions and linear layers; equal calls give one model, which must not be changed."""
    return exported(small_net(), noise(1, 12))


@cache
def small_net() -> nn.Module:
    """Build the network of `small_model`."""
    return new(BNNET, image_size=12).eval()


def packed(model: onnx.ModelProto) -> PackedNetwork:
    coded = {}
    for item in model.graph.initializer:
        array = numpy_helper.to_array(item)
        if array.dtype == np.float32 and array.ndim > 1 and item.name not in NORMALIZATION:
            codes = nearest_codes(np.array([array.std() * 0.8 + 1e-9]), 1)
            coded[item.name] = CodedTensor(np.rint(array / scales_of(codes)).astype(np.int32), codes)
    return take_apart(model, coded)


@pytest.fixture(scope="module")
def small() -> PackedNetwork:
    return packed(small_model())


@pytest.mark.parametrize("name", ["tiny", "resnet20", *SLOW])
def test_every_network_comes_back(name):
    channels, size = (3, 224) if "/" in name else (1, 28)
    network = packed(export_onnx(build(name, channels, size, 2, small_stem=False).eval(), noise(channels, size, 4)))
    found = unpack(pack(network))
    assert found.to_onnx() == network.to_onnx()
    onnx.checker.check_model(onnx.load_from_string(found.to_onnx()), full_check=True)


def test_the_onnx_file_computes_what_the_model_with_these_weights_computes(small):
    model = onnx.ModelProto()
    model.CopyFrom(small_model())
    for item, tensor in zip(model.graph.initializer, replaced(model, small), strict=True):
        item.CopyFrom(numpy_helper.from_array(tensor, item.name))
    images = np.random.default_rng(0).uniform(0, 255, (8, *small.skeleton.shape[:3])).astype(np.float32)
    logits = [
        compute_logits(check_and_load(content, Path("file"), 1), images)
        for content in (small.to_onnx(), PackedNetwork(small.skeleton, small.tensors, small.metadata).to_onnx())
    ]
    reference = compute_logits(make_inference_session(model.SerializeToString(), 1), images)
    assert np.allclose(logits[0], reference, rtol=1e-4, atol=1e-5)
    assert np.array_equal(*logits)


def replaced(model, network):
    """Give the arrays of a model's initializers, in their order, as the packed network has them."""
    names = list(dict.fromkeys(name for node in model.graph.node for name in node.input))
    known = [item.name for item in model.graph.initializer]
    order = [name for name in names if name in known]
    values = dict(zip(order, network.tensors, strict=True))
    for name in known:
        tensor = values[name]
        yield tensor.values() if isinstance(tensor, CodedTensor) else tensor


def test_classes_and_input_come_back_and_the_file_has_a_checksum(small):
    model = onnx.load_from_string(unpack(pack(small)).to_onnx())
    before = {item.key: item.value for item in small_model().metadata_props}
    after = {item.key: item.value for item in model.metadata_props}
    assert {key: after[key] for key in (CLASSES_KEY, INPUT_KEY)} == {
        key: before[key] for key in (CLASSES_KEY, INPUT_KEY)
    }
    assert check_structure(model.SerializeToString(deterministic=True), Path("file"))


def test_the_container_takes_less_than_two_hundred_bytes(small):
    assert len(pack(PackedNetwork(small.skeleton, [], small.metadata))) < 200


def test_every_flipped_byte_and_every_cut_is_refused(small):
    content = pack(small)
    places = np.random.default_rng(0).choice(len(content), 200, replace=False)
    for place in [0, 3, 4, HEADER, *places.tolist()]:
        damaged = bytearray(content)
        damaged[place] ^= 1 + place % 255
        with pytest.raises(ValueError, match=r"not a .lwz file|of version|cut off or damaged"):
            unpack(bytes(damaged))
        with pytest.raises(ValueError, match=r"not a .lwz file|cut off or damaged"):
            unpack(content[:place])


def test_bytes_of_a_right_checksum_that_no_encoder_wrote_end_in_a_line(small, tmp_path):
    content, source = pack(small), np.random.default_rng(0)
    path, lines = tmp_path / "forged.lwz", []
    for number in range(40):
        stream = bytearray(content[HEADER:])
        if number % 2:
            stream[source.integers(min(len(stream), 300))] ^= source.integers(1, 256)
        else:
            stream = bytearray(source.bytes(200))
        path.write_bytes(content[:4] + zlib.crc32(stream).to_bytes(4, "little") + bytes(stream))
        with suppress(InputError):  # a few decode to a network of other weights
            load_network(path)
            continue
        lines.append(refusal(path))
    assert len(lines) > 20
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in lines)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        load_network(path)
    return str(error.value)


def test_an_empty_file_says_how_it_is_made(tmp_path):
    (tmp_path / "compact.lwz").write_bytes(b"")
    with pytest.raises(InputError, match="is empty; with compact"):
        load_network(tmp_path / "compact.lwz")


def test_a_graph_of_other_operators_is_refused():
    model = onnx.ModelProto()
    model.CopyFrom(small_model())
    model.opset_import.add(domain="com.microsoft", version=1)
    with pytest.raises(ValueError, match="not of the ONNX standard"):
        take_apart(model, {})
