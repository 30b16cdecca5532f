"""One sentence per model says what pruning did, in the numbers of its metrics, and why."""

import pytest

from lightweight.evaluation.latency import slowdown_warnings
from lightweight.reporting.summary import explain
from tests.examples import made_up_latency, made_up_metrics


def scores(**changes) -> dict:
    dense = {"size_bytes": 4000, "compressed_bytes": 3600, "parameters": 1000, "nonzero_parameters": 1000, "macs": 500}
    return dense | {"int8_mac_share": 0.0} | changes


def sentence(latency: dict | None = None, **changes) -> str:
    metrics = {name: scores() for name in ("original", "pruned", "recalibrated", "optimized")}
    metrics["recalibrated"] = scores(**changes)
    return explain(metrics, {"recalibrated": latency} if latency else {})[1]


def ratio(speedup: float, low: float, high: float, verdict: str) -> dict:
    found = {"speedup": speedup, "speedup_low": low, "speedup_high": high, "verdict": verdict}
    return {"latency_ms": 1.0, "against_exported": found}


def test_zeros_buy_compression_and_nothing_else():
    latency = {"cpu": "A", "threads": 1, "batch_1": ratio(1.1, 0.9, 1.2, "no difference")}
    assert sentence(latency, nonzero_parameters=100, compressed_bytes=600) == (
        "recalibrated: 90% of the parameters are zero. file as large as before, compressed 6.0 times smaller, MACs "
        "unchanged, latency at batch 1 unchanged. Zeros are stored and multiplied like other weights, only compression "
        "gains by them: choose prune.method: structured for speed."
    )


def test_removed_channels_buy_bytes_macs_and_speed():
    latency = {"batch_64": ratio(3.5, 3.25, 3.75, "faster")}
    small = {"parameters": 250, "nonzero_parameters": 250, "size_bytes": 1000, "compressed_bytes": 900, "macs": 125}
    assert sentence(latency, **small) == (
        "recalibrated: 75% of the parameters are removed. file 4.0 times smaller, compressed 4.0 times smaller, 75% of "
        "the MACs gone, latency at batch 64 3.50 times [3.25, 3.75] as fast as the original exported to ONNX Runtime. "
        "Removed channels are neither stored nor computed."
    )


def test_removed_parameters_that_cost_few_macs_are_said():
    text = sentence(parameters=523, nonzero_parameters=523, size_bytes=2092, compressed_bytes=1890, macs=498)
    assert text.startswith("recalibrated: 48% of the parameters are removed. file 1.9 times smaller")
    assert text.endswith("MACs unchanged. Removed channels are neither stored nor computed.")


def test_both_are_said():
    text = sentence(parameters=500, nonzero_parameters=250, size_bytes=2000, macs=250)
    assert text.startswith("recalibrated: 50% of the parameters are removed and 50% of the rest are zero. ")


@pytest.mark.parametrize(
    ("size", "what", "why"),
    [
        (4000, "next to nothing is pruned.", "There is nothing to gain from."),
        (1000, "next to nothing is pruned, and weights are stored in fewer bits.", "less room than one in 32."),
    ],
)
def test_a_model_that_is_not_pruned_is_said_to_be_so(size, what, why):
    for share in (0.0, 0.002):  # of the MACs in int8, which fp16 has not and of which dynamic can have little
        text = sentence(int8_mac_share=share, size_bytes=size)
        assert text.startswith(f"recalibrated: {what}")
        assert text.endswith(why)


def test_zeros_that_come_of_rounding_to_int8_are_not_said_to_be_pruned():
    metrics = {name: scores() for name in ("original", "pruned", "recalibrated")}
    metrics["optimized"] = scores(int8_mac_share=1.0, nonzero_parameters=900, parameters=950, size_bytes=1000)
    text = explain(metrics, {})[2]
    assert text.startswith(
        "optimized: next to nothing is pruned, and weights are stored in fewer bits. file 4.0 times smaller"
    )


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
