"""What is concluded follows from the samples alone: ratios with an interval, verdicts and warnings."""

import json
import math

import numpy as np
import pytest
from scipy.stats import binom

from lightweight.evaluation.latency import LOOKS, compare, compare_ratio, conditions, imprecision_warnings, summarize
from tests.examples import made_up_latency

KEYS = ["rounds", "latency_ms", "latency_ms_p05", "latency_ms_p95", "dispersion"]
RATIO_KEYS = ["speedup", "speedup_low", "speedup_high", "precise", "verdict"]
INTERVAL = ("speedup_low", "speedup", "speedup_high")


def ratio_of(samples, reference, precision: float = 0.05) -> dict:
    return compare_ratio(np.asarray(samples, float), np.asarray(reference, float), precision)


def test_a_slow_moment_that_hits_both_models_does_not_change_the_ratio():
    slowness = np.random.default_rng(0).random(30) + 1
    ratio = ratio_of(2 * slowness, 8 * slowness)
    assert tuple(ratio[key] for key in INTERVAL) == pytest.approx((4, 4, 4))


def test_median_percentiles_and_dispersion_are_those_of_the_samples():
    summary = summarize(np.arange(1.0, 22.0))
    assert list(summary) == KEYS
    assert tuple(summary.values()) == pytest.approx((21, 11.0, 2.0, 20.0, 20 / 11))
    assert json.loads(json.dumps(summary)) == summary


def test_the_speedup_is_the_median_of_the_ratios_of_each_round_not_the_ratio_of_medians():
    reference, samples = np.array([1.0, 10.0, 100.0] * 5), np.array([10.0, 5.0, 50.0] * 5)
    assert ratio_of(samples, reference)["speedup"] == pytest.approx(2)


@pytest.mark.parametrize("rounds", [12, 24, 30, 60, 120, 240])
def test_the_interval_is_that_of_the_sign_test_with_an_equal_share_of_the_errors_for_each_look(rounds):
    ratios = np.random.default_rng(0).permutation(np.arange(1.0, rounds + 1))
    ratio = ratio_of(np.ones(rounds), ratios)
    low, high = ratio["speedup_low"], ratio["speedup_high"]
    assert low + high == rounds + 1
    assert binom.cdf(low - 1, rounds, 0.5) <= 0.025 / len(LOOKS) < binom.cdf(low, rounds, 0.5)


def test_the_interval_contains_the_true_median_nineteen_times_in_twenty_at_whichever_look_the_rounds_end():
    """The hardest case: rounds end as soon as an interval misses it."""
    true, runs = 1.25, 5000
    ratios = true * np.exp(np.random.default_rng(0).laplace(size=(runs, 240)) * 0.01)
    held = np.ones(runs, bool)
    for rounds in (30 * factor for factor in LOOKS):
        rank = round(ratio_of(np.ones(rounds), np.arange(1.0, rounds + 1))["speedup_low"])
        ends = np.sort(ratios[:, :rounds])[:, [rank - 1, -rank]]
        held &= (ends[:, 0] <= true) & (true <= ends[:, 1])
    assert 0.95 < held.mean() < 0.98


@pytest.mark.parametrize(("low", "high", "precise"), [(0.96, 1.04, True), (0.94, 1.06, False), (0.99, 1.2, False)])
@pytest.mark.parametrize("scale", [1, 400])
def test_a_ratio_is_precise_where_half_of_its_interval_is_at_most_the_given_share_of_it(low, high, precise, scale):
    ratios = scale * np.array([low] * 10 + [1.0] * 11 + [high] * 10)
    ratio = ratio_of(np.ones(31), ratios)
    assert tuple(ratio[key] for key in INTERVAL) == pytest.approx((scale * low, scale, scale * high))
    assert ratio["precise"] is precise
    assert ratio_of(np.ones(31), ratios, 0.11)["precise"]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.01, 1.2, "faster"),
        (0.8, 0.99, "slower"),
        (0.9, 1.1, "no difference"),
        (1.0, 1.1, "no difference"),
        (0.9, 1.0, "no difference"),
    ],
)
def test_there_is_a_difference_only_where_the_interval_does_not_span_one(low, high, verdict):
    ratio = ratio_of(np.ones(20), [low, high] * 10)
    assert (ratio["speedup_low"], ratio["speedup_high"]) == (low, high)
    assert ratio["verdict"] == verdict


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("value", "verdict"), [(1.5, "faster"), (0.5, "slower")])
def test_there_is_a_difference_only_where_both_halves_of_the_rounds_alone_show_it(first, value, verdict):
    doubtful = [value] * 9 + [1.0] * 6
    certain = [value] * 15
    ratio = ratio_of(np.ones(30), certain + doubtful if first else doubtful + certain)
    assert (ratio["speedup_low"] > 1) == (value > 1)
    assert (ratio["speedup_high"] < 1) == (value < 1)
    assert ratio["verdict"] == "no difference"
    assert ratio_of(np.ones(30), certain * 2)["verdict"] == verdict


def test_every_model_is_compared_with_the_reference_and_pairs_with_each_other():
    samples = {name: np.full(20, value) for name, value in {"A": 12.0, "B": 6.0, "C": 2.0}.items()}
    summaries = compare(samples, "A", [("C", "B")], 0.05)
    assert [summaries[name]["speedup"] for name in "ABC"] == [1, 2, 6]
    assert summaries["C"].pop("against_B") == compare_ratio(samples["C"], samples["B"], 0.05)
    assert all(list(entry) == KEYS + RATIO_KEYS for entry in summaries.values())
    assert json.loads(json.dumps(summaries)) == summaries


def test_a_model_is_no_faster_than_the_same_samples():
    samples = np.random.default_rng(0).random(30) + 0.5
    ratio = ratio_of(samples, samples)
    assert list(ratio.values()) == [1, 1, 1, True, "no difference"]


def test_exchanging_model_and_reference_inverts_the_speedup():
    random = np.random.default_rng(0)
    one, other = random.random(31) + 1, random.random(31) + 3
    forth, back = ratio_of(one, other), ratio_of(other, one)
    assert (forth["verdict"], back["verdict"]) == ("faster", "slower")
    assert forth["speedup"] * back["speedup"] == pytest.approx(1)
    assert math.isclose(forth["speedup_low"] * back["speedup_high"], 1)
    assert math.isclose(forth["speedup_high"] * back["speedup_low"], 1)


def test_every_ratio_that_is_not_precise_is_warned_of_with_its_interval():
    wide = dict(zip(RATIO_KEYS, (421.0, 132.0, 561.0, False, "faster"), strict=True))
    narrow = wide | {"precise": True}
    batch = {"rounds": 240} | narrow
    latency = {"original": {"cpu": "A", "batch_1": batch}, "optimized": {"cpu": "A", "batch_1": batch}}
    assert imprecision_warnings(latency) == []
    latency["optimized"] |= {"batch_1": batch | wide, "batch_64": batch | {"against_exported": wide}}
    assert imprecision_warnings(latency) == [
        f"warning: at batch {size} optimized against {other} is 421.00 [132.00, 561.00] times as fast after 240 "
        "rounds: not precise; the machine was too busy for benchmark.precision"
        for size, other in ((1, "original in PyTorch"), (64, "exported"))
    ]


def test_load_frequency_and_the_largest_dispersion_are_told_and_a_frequency_that_nobody_knows_is_not():
    latency = made_up_latency()
    latency["optimized"] = latency["optimized"] | {"batch_64": latency["optimized"]["batch_64"] | {"dispersion": 1.75}}
    load, dispersion = "load 0.04 before and 1.00 after", "95th percentiles up to 1.75 times the median"
    assert conditions(latency) == f"{load}, 2,445 MHz, {dispersion}"
    latency["original"]["cpu_mhz"] = None
    assert conditions(latency) == f"{load}, {dispersion}"
