"""Layers are joined by name, and advice follows from numbers alone."""

import pytest

from lightweight.onnx.coverage import LayerCoverage, Reason
from lightweight.page.advice import advise
from lightweight.page.layers import join_layers
from tests.examples import made_up_latency, made_up_metrics

CONV = LayerCoverage("conv", 100, 90, 32, 700, False, Reason.LINEAR_ONLY)
FC = LayerCoverage("fc", 1000, 900, 8, 300, True, None)
SHAPES = [{"layer": "conv", "shape": "8x4x3x3", "macs": "1400", "shape_after": "4x4x3x3", "macs_after": "700"}]


def test_a_layer_has_what_every_stage_says_of_it():
    conv, fc = join_layers([CONV, FC], SHAPES, [{"layer": "conv", "drop": "0.25"}], [{"layer": "fc", "spared": "why"}])
    assert (conv.shape, conv.shape_after, conv.kept) == (
        "8 \u00d7 4 \u00d7 3 \u00d7 3",
        "4 \u00d7 4 \u00d7 3 \u00d7 3",
        0.5,
    )
    assert (conv.bytes_before, conv.bytes_after) == (8 * 4 * 9 * 4, 400)
    assert (conv.macs_before, conv.macs_after) == (1400, 700)
    assert (conv.drop, conv.int8, conv.reason) == (0.25, False, Reason.LINEAR_ONLY)
    assert (fc.shape, fc.kept, fc.drop, fc.bytes_after) == (None, None, None, 1000)
    assert (fc.int8, fc.reason, fc.spared) == (True, "", "why")


@pytest.fixture
def scores() -> dict:
    scores = made_up_metrics()
    scores["averaged"] |= {"gained": 5, "lost": 0}
    return scores


def advice(scores, latency=None, coverage=(), losses=(), **params) -> str:
    histories = {"prune": [{"val_loss": str(loss)} for loss in losses]}
    return "\n".join(advise(scores, latency or {}, coverage, histories, params))


def test_nothing_is_advised_where_nothing_is_in_sight(scores):
    assert advice(scores, coverage=[FC], losses=[3, 2, 2]) == ""


def test_training_whose_loss_still_fell_had_not_ended(scores):
    assert "prune.epochs" in advice(scores, losses=[3, 2, 1])
    assert advice(scores, losses=[3, 2, 1.99]) == ""
    assert advice(scores, losses=[3, 1]) == "", "two epochs are no curve"


def test_a_layer_in_float32_with_many_macs_is_named(scores):
    text = advice(scores, coverage=[CONV, FC], **{"quantize.method": "dynamic"})
    assert "70 % of the MACs are still float32, 70 % in conv alone" in text
    assert "now it is dynamic" in text


def test_the_layer_of_most_bytes_is_named(scores):
    assert "fc alone takes 71 % of the weights' bytes" in advice(scores, coverage=[CONV, FC])


def test_averaging_that_gained_nothing_is_named_where_it_was_done(scores):
    scores["averaged"] |= {"gained": 1, "lost": 2, "mcnemar_p": 1.0}
    assert "swa.start: null" in advice(scores, **{"swa.start": 5})
    assert "swa" not in advice(scores, **{"swa.start": None})


def test_a_file_that_is_slower_than_its_network_is_named(scores):
    latency = made_up_latency()
    slow = {"speedup": 0.5, "speedup_low": 0.4, "speedup_high": 0.6, "precise": True, "verdict": "slower"}
    own = dict(latency["optimized"])
    own["batch_1"] = own["batch_1"] | {"against_recalibrated": slow}
    assert advice(scores, latency | {"optimized": own}).startswith("8-bit integers are slower here")
