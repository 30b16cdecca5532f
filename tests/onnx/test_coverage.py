"""Coverage says which part of a file runs in fewer bits, and why the rest does not."""

from dataclasses import replace

import pytest

from lightweight.core.files import read_csv, write_csv
from lightweight.onnx.coverage import (
    SENTENCES,
    Reason,
    coverage_table,
    describe,
    describe_limits,
    int8_share,
    measure_coverage,
    read_coverage,
    warning,
)
from lightweight.onnx.graph import list_layers
from lightweight.onnx.layer import Layer
from tests.examples import METHODS, convnet_file, pruned_convnet, quantize

LAYERS = [
    Layer("conv", 100, 90, 32, 700, False),
    Layer("fc", 300, 300, 8, 300, True),
    Layer("node_matmul", 0, 0, 32, 100, False),
    Layer("odd", 100, 100, 8, 900, False),
]


def test_a_layer_that_does_not_run_on_integers_has_its_reason():
    reasons = [layer.reason for layer in measure_coverage(LAYERS, ["fc", "odd"], [], "dynamic")]
    assert reasons == [Reason.LINEAR_ONLY, None, Reason.ACTIVATIONS_ONLY, Reason.NOT_FUSED]
    assert measure_coverage(LAYERS, ["fc"], [], "qat")[0].reason is Reason.QAT_CANNOT
    assert measure_coverage(LAYERS, ["conv", "fc"], ["conv"], "static")[0].reason is Reason.MAX_DROP
    assert measure_coverage(LAYERS, ["fc"], [], "static", named=["conv"])[0].reason is Reason.EXCLUDED


@pytest.mark.parametrize("method", [*METHODS, "qat"])
@pytest.mark.parametrize("bits", [4, 8, 16, 32])
@pytest.mark.parametrize("convertible", [[], ["conv"]])
def test_every_layer_of_every_method_has_one_reason_and_every_reason_a_sentence(method, bits, convertible):
    (layer,) = measure_coverage([Layer("conv", 100, 90, bits, 700, False)], convertible, [], method)
    assert isinstance(layer.reason, Reason)
    assert SENTENCES.keys() == set(Reason)
    assert describe([layer]).endswith(SENTENCES[layer.reason].format(stay="stays", names="conv"))


def test_the_sentence_weighs_layers_by_macs_and_weights_and_is_the_same_from_a_file(tmp_path):
    coverage = measure_coverage(LAYERS, ["fc", "odd"], [], "dynamic")
    assert int8_share(coverage) == 0.15
    assert describe(coverage) == (
        "15% of the MACs run on 8-bit integers; 80% of the weights take 8 bits. "
        "In float32 stays conv: the method converts linear layers only. "
        "In float32 stays node_matmul, where two activations are multiplied. "
        "In float32 stays odd: the runtime does not fuse such layers into integer operators."
    )
    write_csv(tmp_path / "coverage.csv", *coverage_table(coverage))
    assert read_coverage(tmp_path / "coverage.csv") == coverage


def test_a_table_holds_the_text_of_every_reason(tmp_path):
    write_csv(tmp_path / "coverage.csv", *coverage_table(measure_coverage(LAYERS[:2], ["fc"], [], "dynamic")))
    assert (tmp_path / "coverage.csv").read_text() == (
        "name,weights,nonzero,bits,macs,int8,reason,moved,step\n"
        "conv,100,90,32,700,False,the method converts linear layers only,0,1.0\n"
        "fc,300,300,8,300,True,,0,1.0\n"
    )
    for reason in Reason:
        row = read_csv(tmp_path / "coverage.csv")[0] | {"reason": reason.value}
        write_csv(tmp_path / "one.csv", row, [row])
        assert read_coverage(tmp_path / "one.csv")[0].reason is reason


def test_only_all_is_100_percent_and_only_none_is_0_percent():
    few, many = Layer("conv", 1, 1, 32, 1, False), Layer("fc", 999, 999, 8, 999, True)
    text = describe(measure_coverage([few, many], ["fc"], [], "dynamic"))
    assert "more than 99% of the MACs run on 8-bit integers" in text
    assert "more than 99% of the weights take 8 bits" in text
    few, many = replace(many, weights=1, macs=1), replace(few, weights=999, macs=999)
    assert "less than 1% of the MACs" in describe(measure_coverage([few, many], ["fc"], [], "dynamic"))
    assert "0% of the MACs" in describe(measure_coverage([many], ["fc"], [], "dynamic"))


def test_methods_for_all_layers_warn_when_they_leave_much_behind():
    few, all_ = measure_coverage(LAYERS, [], [], "static"), measure_coverage([LAYERS[1]], [], [], "static")
    assert warning(few) == (
        "warning: less than 90% of the MACs run on 8-bit integers. "
        "In float32 stay conv and odd: the method static cannot convert such layers. "
        "In float32 stays node_matmul, where two activations are multiplied."
    )
    assert warning(all_) == ""
    for method in ("none", "dynamic", "int4"):  # they are not meant for all layers
        assert warning(measure_coverage(LAYERS, [], [], method)) == ""
    assert warning(measure_coverage([Layer("conv", 100, 90, 16, 700, False)], [], [], "fp16")) == ""


def test_what_no_layer_of_the_file_computes_is_a_row_of_its_own():
    total = sum(layer.macs for layer in LAYERS)
    assert len(measure_coverage(LAYERS, ["fc"], [], "static", macs=total)) == len(LAYERS)
    coverage = measure_coverage([LAYERS[1]], ["fc"], [], "static", macs=1000)
    assert (coverage[-1].name, coverage[-1].macs, coverage[-1].reason) == ("others", 700, Reason.OTHER_OPERATORS)
    assert int8_share(coverage) == 0.3
    assert describe(coverage).endswith("The other MACs belong to operators that no method converts.")
    assert "100% of the weights of convolutions and matrix products take 8 bits." in describe(coverage)
    assert warning(coverage).endswith("The other MACs belong to operators that no method converts.")


def test_many_layers_are_counted_and_a_warning_names_all_of_them():
    layers = [Layer(f"conv{number}", 1, 1, 32, 1, False) for number in range(8)]
    names = "conv0, conv1, conv2, conv3, conv4 and 3 more"
    assert f"In float32 stay {names}: " in describe(measure_coverage(layers, ["fc"], [], "dynamic"))
    names = "conv0, conv1, conv2, conv3, conv4, conv5, conv6 and conv7"
    assert f"In float32 stay {names}: " in warning(measure_coverage(layers, ["fc"], [], "static"))


def test_of_a_float_file_nothing_is_claimed(tiny_dataset):
    coverage = measure_coverage(list_layers(convnet_file("none", tiny_dataset)), [], [], "none")
    assert describe(coverage) == "0% of the MACs run on 8-bit integers. Nothing is quantized."
    assert {layer.reason for layer in coverage} == {Reason.NOT_QUANTIZED}


def test_int4_and_fp16_name_their_bits(tiny_dataset):
    for method, bits in (("fp16", 16), ("int4", 4)):
        layers = list_layers(quantize(pruned_convnet(tiny_dataset), tiny_dataset, method))
        assert f"of the weights take {bits} bits" in describe(measure_coverage(layers, ["fc"], [], method))


def test_what_it_took_that_no_cpu_cuts_sums_is_told_of_the_layers_in_8_bits_only(tmp_path):
    changes = {"fc": (3, 1.25), "conv": (7, 1.5)}
    coverage = measure_coverage(LAYERS, ["fc", "odd"], [], "dynamic", changes=changes)
    assert [(layer.name, layer.moved, layer.step) for layer in coverage if layer.moved] == [("fc", 3, 1.25)]
    assert describe_limits(coverage) == (
        "So that no CPU cuts sums of products, steps are 1.25 times as wide in 1 of 2 8-bit layers, and 1.00% of their "
        "weights were moved by one step or more."
    )
    write_csv(tmp_path / "coverage.csv", *coverage_table(coverage))
    assert read_coverage(tmp_path / "coverage.csv") == coverage
    assert describe_limits(measure_coverage(LAYERS, ["fc", "odd"], [], "dynamic")) == ""
