"""Models take turns on a clock that the tests turn, and what is concluded follows from the samples alone."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from lightweight import latency
from lightweight.latency import interleave, summarize

KEYS = ["latency_ms", "latency_ms_p05", "latency_ms_p95", "speedup", "speedup_low", "speedup_high", "verdict"]


@pytest.fixture
def calls(monkeypatch) -> SimpleNamespace:
    """Calls A, B and C of 1, 4 and 50 ms on a clock that nothing else moves, and the record of their turns."""
    made = SimpleNamespace(seconds={"A": 0.001, "B": 0.004, "C": 0.05}, now=0.0, turns="")

    def call(name: str) -> None:
        made.turns += name
        made.now += made.seconds[name]

    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: made.now, sleep=lambda _: None))
    made.functions = {name: lambda name=name: call(name) for name in made.seconds}
    return made


def test_every_model_is_timed_once_a_round_in_milliseconds_per_call(calls):
    samples = interleave(calls.functions, rounds=12)
    assert list(samples) == ["A", "B", "C"]
    for name, values in samples.items():
        assert values == pytest.approx(np.full(12, 1000 * calls.seconds[name]))


def test_the_order_rotates_from_round_to_round_after_one_untimed_call_each(calls, monkeypatch):
    monkeypatch.setattr(latency, "SAMPLE_SECONDS", 0)
    interleave(calls.functions, rounds=7)
    rounds = ["AABBCC", "BBCCAA", "CCAABB", "AABBCC", "BBCCAA", "CCAABB", "AABBCC"]
    assert calls.turns.endswith("".join(rounds))
    assert set(calls.turns.removesuffix("".join(rounds))) == set("ABC")


def test_short_calls_are_repeated_until_a_sample_lasts_long_enough(calls):
    interleave(calls.functions, rounds=3)
    repeats = {"A": 10, "B": round(0.01 / 0.004), "C": 1}
    assert calls.turns.endswith("".join(name * (1 + repeats[name]) for name in "ABCBCACAB"))


def test_a_slow_moment_that_hits_both_models_does_not_change_the_ratio():
    slowness = np.random.default_rng(0).random(30) + 1
    found = summarize(2 * slowness, 8 * slowness)
    assert (found["speedup_low"], found["speedup"], found["speedup_high"]) == pytest.approx((4, 4, 4))


def test_medians_percentiles_and_speedup_are_those_of_the_samples():
    samples = np.arange(1.0, 22.0)
    found = summarize(samples, 3 * samples)
    assert list(found) == KEYS
    expected = (11.0, 2.0, 20.0, 3.0, 3.0, 3.0)
    assert tuple(found[key] for key in KEYS[:-1]) == pytest.approx(expected)
    assert json.loads(json.dumps(found)) == found


def test_the_speedup_is_the_median_of_the_ratios_of_each_round_not_the_ratio_of_medians():
    reference, samples = np.array([1.0, 10.0, 100.0] * 5), np.array([10.0, 5.0, 50.0] * 5)
    assert summarize(samples, reference)["speedup"] == pytest.approx(2)


@pytest.mark.parametrize(("rounds", "rank"), [(10, 2), (20, 6), (30, 10), (100, 40)])
def test_the_interval_is_that_of_the_sign_test(rounds, rank):
    ratios = np.random.default_rng(0).permutation(np.arange(1.0, rounds + 1))
    found = summarize(np.ones(rounds), ratios)
    assert (found["speedup_low"], found["speedup_high"]) == (rank, rounds + 1 - rank)


@pytest.mark.parametrize("rounds", [10, 31])
def test_the_interval_contains_the_true_median_nineteen_times_in_twenty(rounds):
    random, true = np.random.default_rng(0), 1.25
    hits = 0
    for _ in range(1000):
        found = summarize(np.ones(rounds), true * np.exp(random.standard_cauchy(rounds) * 0.01))
        hits += found["speedup_low"] <= true <= found["speedup_high"]
    assert 940 < hits < 990


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
    ratios = np.array([low] * 10 + [high] * 10)
    found = summarize(np.ones(20), ratios)
    assert (found["speedup_low"], found["speedup_high"]) == (low, high)
    assert found["verdict"] == verdict


def test_a_model_is_no_faster_than_itself():
    samples = np.random.default_rng(0).random(30) + 0.5
    found = summarize(samples, samples)
    assert (found["speedup"], found["speedup_low"], found["speedup_high"]) == (1, 1, 1)
    assert found["verdict"] == "no difference"


def test_exchanging_model_and_reference_inverts_the_speedup():
    random = np.random.default_rng(0)
    one, other = random.random(31) + 1, random.random(31) + 3
    forth, back = summarize(one, other), summarize(other, one)
    assert (forth["verdict"], back["verdict"]) == ("faster", "slower")
    assert forth["speedup"] * back["speedup"] == pytest.approx(1)
    assert math.isclose(forth["speedup_low"] * back["speedup_high"], 1)
    assert math.isclose(forth["speedup_high"] * back["speedup_low"], 1)
