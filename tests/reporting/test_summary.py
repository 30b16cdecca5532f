"""The sentences say what compression did, in the numbers of the metrics, and why; all of them are whole and true."""

import re
from itertools import product

import pytest

from lightweight.evaluation.latency import slowdown_warnings
from lightweight.reporting.summary import explain, headline
from tests.examples import made_up_latency, made_up_metrics

CONVOLUTIONS = [
    {"layer": f"conv{number}", "weights": "100", "pruned": "50", "sparsity": "0.5"} for number in (1, 2, 3)
] + [{"layer": "fc", "weights": "700", "pruned": "0", "sparsity": "0.0"}]
STRUCTURED = {"parameters": 250, "nonzero_parameters": 250, "size_bytes": 1000, "compressed_bytes": 900, "macs": 125}
SAME_WEIGHTS = "the weights are those of the pruned model, and so are size and MACs."


def scores(**changes) -> dict:
    dense = {"size_bytes": 4000, "compressed_bytes": 3600, "parameters": 1000, "nonzero_parameters": 1000, "macs": 500}
    return dense | {"int8_mac_share": 0.0} | changes


def variants(pruned: dict | None = None, optimized: dict | None = None) -> dict:
    """Make the scores of a run in which pruning, and quantization after it, changed these of the original's."""
    pruned = pruned or {}
    shipped = pruned | (optimized or {})
    names = {"original": {}, "averaged": {}, "pruned": pruned, "recalibrated": pruned, "optimized": shipped}
    return {name: scores(**changes) for name, changes in names.items()}


def ratio(speedup: float, low: float, high: float, verdict: str) -> dict:
    against = {"speedup": speedup, "speedup_low": low, "speedup_high": high, "verdict": verdict}
    return against | {"latency_ms": 1.0, "against_exported": against}


SAME, FAST = ratio(1.1, 0.9, 1.2, "no difference"), ratio(3.5, 3.25, 3.75, "faster")


def test_few_zeros_do_not_shrink_the_file_and_the_layers_that_have_them_are_named():
    metrics = variants({"nonzero_parameters": 999})
    assert explain(metrics, {}, CONVOLUTIONS)[0] == (
        "pruned: in the layers conv1 to conv3, half of the weights are zero; that is 0.1 % of the network, so the file "
        "does not shrink and hardly compresses better."
    )
    assert explain(metrics, {})[0] == (
        "pruned: 0.1 % of the network's parameters are zero, so the file does not shrink and hardly compresses better."
    )


def test_many_zeros_buy_compression_and_nothing_else():
    metrics = variants({"nonzero_parameters": 100, "compressed_bytes": 600})
    rest = (
        " Zeros are stored and computed like other weights, so the file is as large as the original, and the network "
        "needs as many MACs; when both are zipped, the file is 6.0 times smaller. For a smaller and faster network, "
        "set prune.method to structured."
    )
    assert explain(metrics, {})[0] == f"pruned: 90 % of the network's parameters are zero.{rest}"
    assert explain(metrics, {}, CONVOLUTIONS)[0] == (
        f"pruned: in the layers conv1 to conv3, half of the weights are zero; that is 90 % of the network.{rest}"
    )
    assert explain(metrics, {})[2] == (
        "optimized: the file is about as large as the original (when both are zipped, 6.0 times smaller). "
        "Zeros from pruning make only the zipped file smaller."
    )


def test_removed_channels_buy_bytes_macs_and_speed():
    latency = {"recalibrated": {"cpu": "A", "batch_1": SAME, "batch_64": FAST}}
    pruned, recalibrated, optimized = explain(variants(STRUCTURED), latency)
    assert pruned == (
        "pruned: 75 % of the network's parameters are removed with their channels. The file is 4.0 times smaller than "
        "the original, zipped or not, and the network needs 75 % fewer MACs: removed channels are neither stored nor "
        "computed."
    )
    assert recalibrated == (
        f"recalibrated: {SAME_WEIGHTS} Compared with the original in ONNX Runtime, it runs as fast at batch 1 (no "
        "measurable difference) and 3.50 times [3.25, 3.75] as fast at batch 64."
    )
    assert optimized == (
        "optimized: the file is 4.0 times smaller than the original, zipped or not, because 75 % of the parameters are "
        "removed."
    )


def test_layers_that_lost_channels_are_named():
    rows = [row | {"sparsity": share} for row, share in zip(CONVOLUTIONS[:2], ("0.25", "0.75"), strict=True)]
    assert explain(variants(STRUCTURED), {}, rows)[0].startswith(
        "pruned: in the layers conv1 and conv2, between 25 % and 75 % of each layer's weights are removed with their "
        "channels; that is 75 % of the network. The file is 4.0 times smaller"
    )


def test_removed_parameters_that_cost_few_macs_are_said():
    few_macs = {"parameters": 523, "nonzero_parameters": 523, "size_bytes": 2092, "compressed_bytes": 1890, "macs": 498}
    assert explain(variants(few_macs), {})[0].endswith(
        "The file is 1.9 times smaller than the original, zipped or not, and the network needs about as many MACs: "
        "the removed channels took few of them."
    )


def test_zeros_among_what_is_left_are_said():
    text = explain(variants(STRUCTURED | {"nonzero_parameters": 125}), {})[0]
    assert text.endswith(" Of the parameters that are left, 50 % are zero, which makes only the zipped file smaller.")


def test_a_model_that_is_not_pruned_is_said_to_be_so():
    pruned, recalibrated, optimized = explain(variants(), {})
    assert pruned == (
        "pruned: no weight is removed or set to zero, so the file is as large and takes as many MACs as the original."
    )
    assert recalibrated == f"recalibrated: {SAME_WEIGHTS}"
    assert optimized == "optimized: the file is about as large as the original, zipped or not."


def test_bytes_saved_by_fewer_bits_are_said_to_be_so():
    fewer = {"size_bytes": 1000, "compressed_bytes": 700, "int8_mac_share": 1.0}
    size = "optimized: the file is 4.0 times smaller than the original (when both are zipped, 5.1 times smaller)"
    assert explain(variants({}, fewer), {})[2] == f"{size}, because weights are stored in fewer bits."
    both = variants(STRUCTURED, {"size_bytes": 400, "compressed_bytes": 360})
    assert explain(both, {})[2] == (
        "optimized: the file is 10.0 times smaller than the original, zipped or not, because 75 % of the parameters "
        "are removed and weights are stored in fewer bits."
    )


def test_a_file_of_float32_is_not_said_to_take_fewer_bits_however_large_the_original_is():
    assert "fewer bits" not in explain(variants({}, {"size_bytes": 4000, "parameters": 1000}), {})[2]
    metrics = variants({}, {"size_bytes": 4000, "compressed_bytes": 3600})
    metrics["original"] |= {"size_bytes": 9000, "compressed_bytes": 9000}  # with all that a small file holds beside
    assert "fewer bits" not in explain(metrics, {})[2]


def test_a_larger_file_is_said_to_be_so():
    text = explain(variants({}, {"size_bytes": 6000, "compressed_bytes": 3600}), {})[2]
    assert text == "optimized: the file is 1.5 times larger than the original (when both are zipped, about as large)."


def test_zeros_that_come_of_rounding_to_int8_are_not_said_to_be_pruned():
    rounded = {"int8_mac_share": 1.0, "nonzero_parameters": 900, "parameters": 950, "size_bytes": 1000}
    text = explain(variants({}, rounded), {})[2]
    assert "zero" not in text.lower()
    assert "removed" not in text


def test_two_batch_sizes_without_a_difference_are_one_phrase():
    latency = {"optimized": {"cpu": "A", "batch_1": SAME, "batch_64": SAME}}
    assert explain(variants(), latency)[2].endswith(
        " Compared with the original in ONNX Runtime, it runs as fast at batch 1 and batch 64 (no measurable "
        "difference)."
    )


CHANGES = {
    "unstructured, few": {"nonzero_parameters": 999},
    "unstructured, some": {"nonzero_parameters": 960, "compressed_bytes": 3400},
    "unstructured, many": {"nonzero_parameters": 100, "compressed_bytes": 600},
    "unstructured, incompressible": {"nonzero_parameters": 900},
    "structured": STRUCTURED,
    "structured, few": {"parameters": 999, "nonzero_parameters": 999, "size_bytes": 3996, "macs": 499},
    "structured with zeros": STRUCTURED | {"nonzero_parameters": 100, "compressed_bytes": 400},
    "nothing": {},
}
BITS = {"float32": {}, "fewer bits": {"size_bytes": 500, "compressed_bytes": 300}, "larger": {"size_bytes": 8000}}
TIMED = {
    "not timed": {},
    "timed": {name: {"cpu": "A", "threads": 1, "batch_1": FAST} for name in ("recalibrated", "optimized")},
    "no difference": {name: {"cpu": "A", "batch_1": SAME, "batch_64": SAME} for name in ("recalibrated", "optimized")},
}


@pytest.mark.parametrize(("change", "bits", "timed"), list(product(CHANGES, BITS, TIMED)))
@pytest.mark.parametrize("rows", [(), CONVOLUTIONS], ids=["layers unknown", "layers known"])
def test_every_combination_gives_whole_sentences(change, bits, timed, rows):
    lines = explain(variants(CHANGES[change], BITS[bits]), TIMED[timed], rows)
    assert [line.partition(": ")[0] for line in lines] == ["pruned", "recalibrated", "optimized"]
    for line in lines:
        sentences = re.split(r"(?<=[a-z)])\. ", line.partition(": ")[2].removesuffix("."))
        assert line.endswith(".")
        for sentence in sentences:
            assert re.search(r"\b(is|are|needs|make|runs|set|makes)\b", sentence), sentence
            assert not re.search(r"  | ,|,,|\.\.| \.|\bnan\b|\binf\b|\(\)", sentence), sentence
        assert all(sentence[0].isupper() for sentence in sentences[1:])
    assert ("conv1" in lines[0]) == (bool(rows) and change != "nothing")
    assert ("Compared with" in lines[1]) == ("Compared with" in lines[2]) == (timed != "not timed")


def test_the_headline_compares_the_optimized_file_with_the_original():
    metrics, latency = made_up_metrics(), made_up_latency()
    changes = {"accuracy": 0.945, "gained": 3, "lost": 9, "images": 1200, "mcnemar_p": 0.14599, "size_bytes": 1_000_000}
    metrics["optimized"] |= changes
    first = latency["optimized"]["batch_1"]
    slower = first | {"speedup": 0.5, "speedup_low": 0.4, "speedup_high": 0.6, "verdict": "slower"}
    latency["optimized"] = latency["optimized"] | {"batch_1": first | {"against_exported": slower}, "batch_64": SAME}
    assert headline(metrics, latency) == [
        "The optimized file is 4.0 times smaller than the original and 0.50 points less accurate: of 1,200 test images "
        "it newly gets 3 right and 9 wrong (exact McNemar test: p = 0.15; with 1,200 images, a loss below 0.5 points "
        "cannot be told from chance).",
        "At batch 1 it runs 0.50 times [0.40, 0.60] as fast as the original exported to ONNX without compression, and "
        "2.00 times [1.90, 2.10] as fast as the original in PyTorch.",
        "At batch 64 it runs as fast as the original exported to ONNX without compression (no measurable difference), "
        "and as fast as the original in PyTorch (no measurable difference).",
    ]


@pytest.mark.parametrize(("accuracy", "words"), [(0.96, "1.00 points more accurate:"), (0.95, "as accurate:")])
def test_a_gain_in_accuracy_and_none_are_said_to_be_so(accuracy, words):
    metrics = made_up_metrics()
    metrics["optimized"]["accuracy"] = accuracy
    (line,) = headline(metrics, {})
    assert f" the original and {words}" in line


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (450, "with 450 images, a loss below 1.3 points cannot"),
        (10_000, "with 10,000 images, a loss below 0.06 points cannot"),
        (60, "with 60 images, a loss below 10 points cannot"),
        (5, "with 5 images, a loss cannot"),
    ],
)
def test_the_headline_says_how_small_a_loss_so_many_images_can_show(images, words):
    metrics = made_up_metrics()
    metrics["optimized"]["images"] = images
    assert f"{words} be told from chance" in headline(metrics, {})[0]


def test_every_pruned_model_has_its_sentence_with_and_without_latency():
    for latency in ({}, made_up_latency()):
        lines = explain(made_up_metrics(), latency)
        assert [line.partition(":")[0] for line in lines] == ["pruned", "recalibrated", "optimized"]


def test_a_file_that_is_slower_than_its_network_in_float32_is_warned_of():
    fast, slow = ratio(1.2, 1.1, 1.3, "faster"), ratio(0.5, 0.4, 0.6, "slower")
    latency = {name: {"cpu": "A", "batch_1": fast, "batch_64": slow} for name in ("recalibrated", "optimized")}
    assert slowdown_warnings(latency) == []  # than the original: that is what pruning does, or the runtime
    for batch in ("batch_1", "batch_64"):
        latency["optimized"][batch]["against_recalibrated"] = latency["optimized"][batch]["against_exported"]
    assert slowdown_warnings(latency) == [
        "warning: at batch 64 the optimized file runs 0.50 times [0.40, 0.60] as fast as the same network in float32: "
        "here quantize saves bytes, not time; quantize.method: none is faster"
    ]
