"""The file that ships equals the network on raw pixels, knows its classes and nothing of where it was made."""

import json
import socket
import sys
import tempfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from lightweight.data.resizing import Resizing
from lightweight.macs import count_macs
from lightweight.onnx.export import CLASSES_KEY, FromPixels, export_onnx, finalize_metadata
from lightweight.onnx.graph import list_layers
from lightweight.onnx.logits import onnx_logits, torch_logits
from lightweight.onnx.session import make_inference_session
from lightweight.quantization.parity import logit_error
from tests.examples import (
    BNNET,
    METHODS,
    convnet_file,
    exported,
    new,
    pruned_convnet,
    quantize,
    quantize_params,
    shipped,
    train,
    trained,
)  # fmt: skip


@pytest.fixture(scope="module", params=["convnet", "bnnet"])
def network_and_file(request, tiny_dataset) -> tuple[nn.Module, bytes]:
    model = pruned_convnet(tiny_dataset) if request.param == "convnet" else trained(BNNET, tiny_dataset)
    return model, shipped(model, "none", tiny_dataset)


def test_the_file_gives_the_logits_of_the_network_from_raw_pixels(tiny_dataset, network_and_file):
    model, content = network_and_file
    split = tiny_dataset.test
    with torch.no_grad():
        expected = model((split.images / 255 - tiny_dataset.mean) / tiny_dataset.std).numpy()
    actual = onnx_logits(make_inference_session(content, threads=1), split, batch_size=60)
    assert np.linalg.norm(actual - expected) < 1e-5 * np.linalg.norm(expected)
    assert actual.dtype == np.float32


@pytest.mark.parametrize("batch_size", [1, 2, 59])
def test_the_file_takes_any_batch_size(tiny_dataset, network_and_file, batch_size):
    session = make_inference_session(network_and_file[1], threads=1)
    images = tiny_dataset.test.images.numpy().astype(np.float32)
    (whole,) = session.run(None, {"input": images})
    (part,) = session.run(None, {"input": images[:batch_size]})
    np.testing.assert_allclose(part, whole[:batch_size], rtol=1e-4, atol=1e-4)


def test_every_channel_is_normalised_by_its_own_mean_and_std(tiny_dataset):
    moments = {"mean": torch.tensor([0.1, 0.2, 0.3]), "std": torch.tensor([0.4, 0.5, 0.6])}
    dataset = replace(tiny_dataset, **moments, input_size=4)
    images = torch.randint(0, 256, (2, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    normalized = FromPixels(nn.Identity(), dataset)(images.float())
    for channel in range(3):
        expected = (images[:, channel] / 255 - dataset.mean[channel]) / dataset.std[channel]
        torch.testing.assert_close(normalized[:, channel], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_file_takes_stored_images_and_enlarges_them_itself(tiny_dataset, method):
    dataset = replace(tiny_dataset, input_size=45)
    model = new("tiny", image_size=45)
    train(model, dataset, range(1, 4), lr=0.01)
    content = quantize(model.eval(), dataset, method)
    session = make_inference_session(content, threads=1)
    assert session.get_inputs()[0].shape[1:] == [1, 28, 28]
    expected = torch_logits(model, dataset, dataset.test, 60)
    actual = onnx_logits(session, dataset.test, 60)
    assert logit_error(expected, actual) < (1e-4 if method == "none" else 0.25)  # without VNNI, products saturate
    assert sum(layer.macs for layer in list_layers(content)) == count_macs(model, dataset.blank(1))


@pytest.mark.parametrize("method", METHODS)
def test_the_metadata_describes_the_file_and_holds_nothing_of_where_it_was_made(tiny_dataset, method):
    model = onnx.load_from_string(convnet_file(method, tiny_dataset))
    metadata = {item.key: json.loads(item.value) for item in model.metadata_props if item.key != "sha256"}
    versions = {"torch": "2.13.0", "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    assert metadata.pop("versions") == versions
    assert metadata.pop("input") == {
        "type": "float32",
        "shape": ["N", 1, 28, 28],
        "values": "0 to 255",
        "colours": "grey",
        "from_photographs": "turned upright as EXIF says, cropped to a square around the centre, resized: "
        "PIL.ImageOps.fit, bilinear",
    }
    assert metadata == {CLASSES_KEY: list("0123456789"), "format": 1}


def test_the_metadata_says_how_photographs_were_resized_in_words_and_in_numbers(tiny_dataset):
    model = onnx.ModelProto()
    finalize_metadata(model, replace(tiny_dataset, resizing=Resizing(32, "bicubic")))
    about = json.loads({item.key: item.value for item in model.metadata_props}["input"])
    assert about["resize"] == {"shorter_side": 32, "interpolation": "bicubic"}
    assert about["from_photographs"] == (
        "turned upright as EXIF says, resized to a shorter side of 32, cut to 28x28 around the centre: torchvision's "
        "Resize and CenterCrop of PIL images, bicubic"
    )


def test_the_license_of_the_model_stands_in_the_metadata(tiny_dataset):
    content = quantize(pruned_convnet(tiny_dataset), tiny_dataset, "none", license="Apache-2.0")
    metadata = {item.key: item.value for item in onnx.load_from_string(content).metadata_props}
    assert metadata["license"] == '"Apache-2.0"'


@pytest.mark.parametrize("name", ["MIT", "CC BY-SA 4.0", "LicenseRef-own:1/2 (x)", "a" * 200])
def test_a_license_is_a_name(name):
    assert quantize_params("none", license=name).license == name


@pytest.mark.parametrize("text", ["", " MIT", "MIT\n", "MIT\nmore", "MIT # more", "MIT\x1b[2J", "a" * 201, "MIT\u00fc"])
def test_a_license_that_is_no_name_is_refused(text):
    with pytest.raises(ValidationError, match=r"must be a name such as MIT or Apache-2\.0, or null"):
        quantize_params("none", license=text)


def test_class_names_of_any_script_survive(tiny_dataset):
    names, model = ('a "quoted", name', "Ünïcödé", "猫", "", "a\\b\n"), onnx.ModelProto()
    finalize_metadata(model, replace(tiny_dataset, classes=names))
    restored = onnx.load_from_string(model.SerializeToString())
    assert tuple(json.loads(restored.metadata_props[0].value)) == names


@pytest.mark.parametrize("method", METHODS)
def test_input_and_output_are_named_and_have_a_free_batch_size(tiny_dataset, method):
    model = onnx.load_from_string(convnet_file(method, tiny_dataset))
    onnx.checker.check_model(model, full_check=True)
    sizes = {}
    for item in (*model.graph.input, *model.graph.output):
        first, *rest = item.type.tensor_type.shape.dim
        assert item.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert first.dim_param
        sizes[item.name] = [dimension.dim_value for dimension in rest]
    assert sizes == {"input": [1, 28, 28], "logits": [10]}


@pytest.mark.parametrize("method", METHODS)
def test_the_file_bears_no_trace_of_the_place_it_was_made_at(tiny_dataset, method):
    model = onnx.load_from_string(convnet_file(method, tiny_dataset))
    for item in model.graph.initializer:
        item.ClearField("raw_data")  # in which any short word turns up by chance
    places = [Path(__file__).parent.parent, sys.prefix, Path.home(), socket.gethostname(), tempfile.gettempdir()]
    content = model.SerializeToString()
    assert b"conv1.weight" in content
    assert [place for place in map(str, places) if len(place) > 3 and place.encode() in content] == []


@pytest.mark.parametrize("method", METHODS)
def test_all_weights_lie_in_the_file_itself(tiny_dataset, method):
    initializers = onnx.load_from_string(convnet_file(method, tiny_dataset)).graph.initializer
    assert initializers
    for item in initializers:
        assert item.data_location == onnx.TensorProto.DEFAULT
        assert item.raw_data or item.int32_data or item.int64_data or item.float_data


def test_equal_weights_give_equal_bytes_in_whatever_order_a_network_declares_them(tiny_dataset):
    model = pruned_convnet(tiny_dataset)
    reordered = deepcopy(model)
    for module in reordered:
        if "bias" in module._parameters:
            module.weight = module._parameters.pop("weight")
    assert list(reordered.state_dict()) != list(model.state_dict())
    again = export_onnx(reordered, tiny_dataset).SerializeToString()
    assert again == exported(model, tiny_dataset).SerializeToString()
