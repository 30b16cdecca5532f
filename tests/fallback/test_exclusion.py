"""Layers that `exclude` names stay in float32, by name or by pattern, and a wrong name is refused with the nearest."""

import pytest

from lightweight.core.errors import InputError
from lightweight.fallback.exclusion import match_layers
from lightweight.onnx.coverage import Reason
from lightweight.onnx.graph import list_layers
from tests.examples import quantizer, small_cnn, small_images

NAMES = ["features.0.conv", "features.1.conv", "features.10.conv", "fc"]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ([], []),
        (["fc"], ["fc"]),
        (["fc", "features.1.conv"], ["features.1.conv", "fc"]),
        (["features.1*"], ["features.1.conv", "features.10.conv"]),
        (["*", "fc"], NAMES),
    ],
)
def test_names_and_patterns_name_layers_in_the_order_of_the_network(patterns, names):
    assert match_layers(patterns, NAMES) == names


@pytest.mark.parametrize(("pattern", "nearest"), [("features.0.cnv", "features.0.conv"), ("feetures.1*", "features.1")])
def test_an_unknown_name_is_refused_with_the_nearest(pattern, nearest):
    with pytest.raises(
        InputError, match=r"^params\.yaml: quantize\.exclude = .*: names no layer; did you mean "
    ) as error:
        match_layers(["fc", pattern], NAMES)
    assert nearest in str(error.value).partition("did you mean ")[2].partition(" or ")[0]


@pytest.mark.parametrize(
    "method", ["static", "int4", "dynamic", *(pytest.param(name, marks=pytest.mark.slow) for name in ("qat", "fp16"))]
)
def test_an_excluded_layer_keeps_its_weights_in_float32_and_no_other_does(tiny_dataset, method):
    images = small_images(tiny_dataset)
    limits = {"max_logit_error": 1e9, "max_accuracy_drop": 1.0, "calibration_images": 20}
    plain, named = (quantizer(small_cnn(), images, method, exclude=names, **limits).run() for names in ([], ["fc1"]))
    reasons = {layer.name: layer.reason for layer in named.coverage}
    assert reasons == {layer.name: layer.reason for layer in plain.coverage} | {"fc1": Reason.EXCLUDED}
    bits = {layer.name: layer.bits for layer in list_layers(named.content)}
    assert bits == {layer.name: layer.bits for layer in list_layers(plain.content)} | {"fc1": 32}
    assert "fc1" not in {row["layer"] for row in named.rounding}


def test_a_layer_that_the_method_would_not_convert_anyway_may_be_named(tiny_dataset):
    images = small_images(tiny_dataset)
    plain, named = (quantizer(small_cnn(), images, "dynamic", exclude=names) for names in ([], ["conv*"]))
    assert plain.run().content == named.run().content


@pytest.mark.parametrize("method", ["dynamic", "static", "qat"])
def test_a_file_must_convert_a_layer_at_least(tiny_dataset, method):
    with pytest.raises(InputError, match=r"quantize\.exclude = \['\*'\]: names every layer"):
        quantizer(small_cnn(), small_images(tiny_dataset), method, exclude=["*"]).make_converter()
