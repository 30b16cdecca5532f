"""The report says which part of a file runs in fewer bits, and why the rest does not."""

from lightweight.core.files import read_csv, write_csv
from lightweight.onnx import coverage, graph
from lightweight.onnx.graph import Layer
from tests.examples import convnet_file, pruned_convnet, quantize

LAYERS = [
    Layer("conv", 100, 90, 32, 700, False),
    Layer("fc", 300, 300, 8, 300, True),
    Layer("node_matmul", 0, 0, 32, 100, False),
    Layer("odd", 100, 100, 8, 900, False),
]


def test_a_layer_that_is_left_out_has_its_reason():
    reasons = [row["reason"] for row in coverage.rows(LAYERS, ["fc", "odd"], [], "dynamic")]
    assert reasons == [coverage.LEFT, "", "a product of two activations", "the runtime does not fuse it"]
    assert coverage.rows(LAYERS, ["fc"], [], "qat")[0]["reason"] == "qat cannot convert it"
    assert coverage.rows(LAYERS, ["conv", "fc"], ["conv"], "static")[0]["reason"] == "max_drop keeps it in float32"


def test_the_sentence_weighs_layers_by_macs_and_weights_and_is_the_same_from_a_file(tmp_path):
    rows = coverage.rows(LAYERS, ["fc", "odd"], [], "dynamic")
    assert coverage.int8_share(rows) == 0.15
    said = coverage.describe(rows)
    assert said.startswith("15% of the MACs run on 8-bit integers, 80% of the weights take 8 bits; conv: the method")
    write_csv(tmp_path / "coverage.csv", rows[0], rows)
    assert coverage.describe(read_csv(tmp_path / "coverage.csv")) == said


def test_methods_for_all_layers_warn_when_they_leave_much_behind():
    few, all_ = coverage.rows(LAYERS, [], [], "static"), coverage.rows([LAYERS[1]], [], [], "static")
    said = "warning: less than 90% of the MACs run on 8-bit integers; in float: conv, odd: static cannot convert it; "
    said += "node_matmul: a product of two activations"
    assert [coverage.warning(rows) for rows in (few, all_)] == [said, ""]
    for method in ("none", "dynamic", "int4"):  # which are not meant for all layers
        assert coverage.warning(coverage.rows(LAYERS, [], [], method)) == ""
    assert coverage.warning(coverage.rows([Layer("conv", 100, 90, 16, 700, False)], [], [], "fp16")) == ""


def test_what_no_layer_of_the_file_computes_is_a_row_of_its_own():
    total = sum(layer.macs for layer in LAYERS)
    assert len(coverage.rows(LAYERS, ["fc"], [], "static", macs=total)) == len(LAYERS)
    rows = coverage.rows([LAYERS[1]], ["fc"], [], "static", macs=1000)
    assert rows[-1]["macs"] == 700
    assert coverage.int8_share(rows) == 0.3
    assert "others: operators that no method converts" in coverage.describe(rows)
    assert "100% of the weights of convolutions and matrix products take 8 bits" in coverage.describe(rows)
    assert coverage.warning(rows).endswith("in float: others: operators that no method converts")


def test_many_layers_are_counted():
    rows = coverage.rows([Layer(f"conv{number}", 1, 1, 32, 1, False) for number in range(8)], ["fc"], [], "dynamic")
    assert coverage.describe(rows).endswith("conv0, conv1, conv2, conv3, conv4 and 3 more: " + coverage.LEFT)


def test_of_a_float_file_nothing_is_claimed(tiny_dataset):
    rows = coverage.rows(graph.layers(convnet_file("none", tiny_dataset)), [], [], "none")
    assert coverage.describe(rows).startswith("0% of the MACs run on 8-bit integers; ")
    assert {row["reason"] for row in rows} == {"not quantized"}


def test_int4_and_fp16_name_their_bits(tiny_dataset):
    for method, bits in (("fp16", 16), ("int4", 4)):
        rows = coverage.rows(
            graph.layers(quantize(pruned_convnet(tiny_dataset), tiny_dataset, method)), ["fc"], [], method
        )
        assert f"of the weights take {bits} bits" in coverage.describe(rows)
