"""Models take turns on a clock that the tests turn, and what is concluded follows from the samples alone."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from lightweight.evaluation import latency
from lightweight.evaluation.latency import compare, interleave, summarize

KEYS = ["latency_ms", "latency_ms_p05", "latency_ms_p95", "speedup", "speedup_low", "speedup_high", "verdict"]


@pytest.fixture
def calls(monkeypatch) -> SimpleNamespace:
    """Make calls A, B and C of 1, 4 and 50 ms on a clock that nothing else moves, with a record of their turns."""
    made = SimpleNamespace(seconds={"A": 0.001, "B": 0.004, "C": 0.05}, now=0.0, turns="", disturbed=0)

    def call(name: str) -> None:
        made.disturbed += bool(made.turns) and made.turns[-1] != name and made.busy > 0
        made.turns += name
        made.now += made.seconds[name]
        made.busy = made.spinning[name]

    made.spinning = {"A": 0.0, "B": 0.035, "C": 0.0}  # seconds for which threads go on after a call
    made.busy, made.spent = 0.0, 0.0

    def sleep(seconds: float) -> None:
        made.spent += min(made.busy, seconds)
        made.busy = max(0.0, made.busy - seconds)

    clock = SimpleNamespace(perf_counter=lambda: made.now, process_time=lambda: made.spent, sleep=sleep)
    monkeypatch.setattr(latency, "time", clock)
    made.functions = {name: lambda name=name: call(name) for name in made.seconds}
    return made


def test_every_model_is_timed_once_a_round_in_milliseconds_per_call(calls):
    samples = interleave(calls.functions, rounds=12)
    assert list(samples) == ["A", "B", "C"]
    for name, values in samples.items():
        assert values == pytest.approx(np.full(12, 1000 * calls.seconds[name]))


def rounds_of(turns: str, number: int) -> list[str]:
    """Split the turns of the last rounds, in each of which every model has one untimed call and one sample."""
    orders = [turns[-6 * number :][start : start + 6] for start in range(0, 6 * number, 6)]
    assert all(order[::2] == order[1::2] for order in orders)
    return [order[::2] for order in orders]


def test_every_round_has_an_order_of_its_own_after_one_untimed_call_each(calls, monkeypatch):
    monkeypatch.setattr(latency, "SAMPLE_SECONDS", 0)
    interleave(calls.functions, rounds=30)
    orders = rounds_of(calls.turns, 30)
    assert {"".join(sorted(order)) for order in orders} == {"ABC"}
    assert {order[1:] for order in orders} == {"AB", "BA", "AC", "CA", "BC", "CB"}  # each follows each


def test_equal_runs_have_equal_orders(calls):
    interleave(calls.functions, rounds=10)
    before, calls.turns = calls.turns, ""
    interleave(calls.functions, rounds=10)
    assert calls.turns == before


def test_a_turn_begins_when_the_threads_of_the_one_before_have_stopped(calls, monkeypatch):
    monkeypatch.setattr(latency, "SAMPLE_SECONDS", 0)
    interleave(calls.functions, rounds=1)  # the warm-up, in which nothing is timed, does not wait
    calls.disturbed = 0
    interleave(calls.functions, rounds=20)
    in_warm_up = calls.disturbed
    assert in_warm_up <= 2
    monkeypatch.setattr(latency, "MAX_POLLS", 1)
    interleave(calls.functions, rounds=20)
    assert calls.disturbed > in_warm_up + 10


def test_a_process_that_never_rests_is_measured_all_the_same(calls):
    calls.spinning = dict.fromkeys("ABC", math.inf)
    samples = interleave(calls.functions, rounds=3)
    assert samples["A"] == pytest.approx(np.full(3, 1))


def test_short_calls_are_repeated_until_a_sample_lasts_long_enough(calls):
    interleave(calls.functions, rounds=1)
    repeats = {"A": 10, "B": round(0.01 / 0.004), "C": 1}
    order = dict.fromkeys(calls.turns[-sum(repeats.values()) - 3 :])
    assert sorted(order) == ["A", "B", "C"]
    assert calls.turns.endswith("".join(name * (1 + repeats[name]) for name in order))


def test_a_slow_moment_that_hits_both_models_does_not_change_the_ratio():
    slowness = np.random.default_rng(0).random(30) + 1
    summary = summarize(2 * slowness, 8 * slowness)
    assert (summary["speedup_low"], summary["speedup"], summary["speedup_high"]) == pytest.approx((4, 4, 4))


def test_medians_percentiles_and_speedup_are_those_of_the_samples():
    samples = np.arange(1.0, 22.0)
    summary = summarize(samples, 3 * samples)
    assert list(summary) == KEYS
    expected = (11.0, 2.0, 20.0, 3.0, 3.0, 3.0)
    assert tuple(summary[key] for key in KEYS[:-1]) == pytest.approx(expected)
    assert json.loads(json.dumps(summary)) == summary


def test_the_speedup_is_the_median_of_the_ratios_of_each_round_not_the_ratio_of_medians():
    reference, samples = np.array([1.0, 10.0, 100.0] * 5), np.array([10.0, 5.0, 50.0] * 5)
    assert summarize(samples, reference)["speedup"] == pytest.approx(2)


@pytest.mark.parametrize(("rounds", "rank"), [(10, 2), (20, 6), (30, 10), (100, 40)])
def test_the_interval_is_that_of_the_sign_test(rounds, rank):
    ratios = np.random.default_rng(0).permutation(np.arange(1.0, rounds + 1))
    summary = summarize(np.ones(rounds), ratios)
    assert (summary["speedup_low"], summary["speedup_high"]) == (rank, rounds + 1 - rank)


@pytest.mark.parametrize("rounds", [10, 31])
def test_the_interval_contains_the_true_median_nineteen_times_in_twenty(rounds):
    random, true = np.random.default_rng(0), 1.25
    hits = 0
    for _ in range(1000):
        summary = summarize(np.ones(rounds), true * np.exp(random.standard_cauchy(rounds) * 0.01))
        hits += summary["speedup_low"] <= true <= summary["speedup_high"]
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
    summary = summarize(np.ones(20), ratios)
    assert (summary["speedup_low"], summary["speedup_high"]) == (low, high)
    assert summary["verdict"] == verdict


def test_every_model_is_compared_with_the_reference_and_pairs_with_each_other():
    samples = {name: np.full(20, value) for name, value in {"A": 12.0, "B": 6.0, "C": 2.0}.items()}
    summaries = compare(samples, "A", [("C", "B")])
    assert [summaries[name]["speedup"] for name in "ABC"] == [1, 2, 6]
    assert summaries["C"].pop("against_B") == summarize(samples["C"], samples["B"])
    assert all(list(entry) == KEYS for entry in summaries.values())


def test_a_model_is_no_faster_than_itself():
    samples = np.random.default_rng(0).random(30) + 0.5
    summary = summarize(samples, samples)
    assert (summary["speedup"], summary["speedup_low"], summary["speedup_high"]) == (1, 1, 1)
    assert summary["verdict"] == "no difference"


def test_exchanging_model_and_reference_inverts_the_speedup():
    random = np.random.default_rng(0)
    one, other = random.random(31) + 1, random.random(31) + 3
    forth, back = summarize(one, other), summarize(other, one)
    assert (forth["verdict"], back["verdict"]) == ("faster", "slower")
    assert forth["speedup"] * back["speedup"] == pytest.approx(1)
    assert math.isclose(forth["speedup_low"] * back["speedup_high"], 1)
    assert math.isclose(forth["speedup_high"] * back["speedup_low"], 1)
