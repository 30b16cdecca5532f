"""Models take turns on a clock that the tests turn: order, repeats, clocks, and when the rounds end."""

import math
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from lightweight.evaluation import timing
from lightweight.evaluation.latency import LOOKS, compare_ratio
from lightweight.evaluation.timing import Effort, choose_repeats, time_in_turns

ONE, TWO = (Effort(rounds=12, precision=0.05, threads=threads) for threads in (1, 2))


class Call:
    """What an opener returns."""

    def __init__(self, name: str, machine: SimpleNamespace) -> None:
        self.name, self.machine = name, machine

    def __call__(self) -> None:
        machine = self.machine
        machine.disturbed += bool(machine.turns) and machine.turns[-1] != self.name and machine.busy > 0
        machine.turns += self.name
        seconds = machine.seconds[self.name] * machine.slowness()
        machine.spent += seconds
        machine.now += seconds + machine.waits()
        machine.busy = machine.spinning[self.name]


@pytest.fixture
def machine(monkeypatch) -> SimpleNamespace:
    """Make models A, B and C of 1, 4 and 50 ms a call on clocks that nothing else moves, with a record of turns."""
    made = SimpleNamespace(seconds={"A": 0.001, "B": 0.004, "C": 0.05}, now=0.0, spent=0.0, turns="", disturbed=0)
    made.spinning = {"A": 0.0, "B": 0.035, "C": 0.0}  # seconds for which threads go on after a call
    made.busy, made.opened, made.closed, made.kept = 0.0, "", "", []
    made.slowness, made.waits = lambda: 1.0, lambda: 0.0  # of a call, and the seconds for which others have the core

    def open_model(name: str) -> Call:
        call = Call(name, made)
        made.opened += name
        made.kept.append(made.opened.count(name) - made.closed.count(name))
        weakref.finalize(call, lambda: setattr(made, "closed", made.closed + name))
        return call

    def sleep(seconds: float) -> None:
        made.now += seconds
        made.spent += min(made.busy, seconds)
        made.busy = max(0.0, made.busy - seconds)

    clock = SimpleNamespace(perf_counter=lambda: made.now, process_time=lambda: made.spent, sleep=sleep)
    monkeypatch.setattr(timing, "time", clock)
    made.openers = {name: lambda name=name: open_model(name) for name in made.seconds}
    return made


def test_every_model_is_timed_once_a_round_in_milliseconds_per_call(machine):
    samples = time_in_turns(machine.openers, [("A", "B")], ONE)
    assert list(samples) == ["A", "B", "C"]
    for name, values in samples.items():
        assert values == pytest.approx(np.full(12, 1000 * machine.seconds[name]))


def rounds_of(machine: SimpleNamespace, number: int) -> list[str]:
    """Split the turns of the last rounds, in each of which every model has two untimed calls and one sample."""
    orders = [machine.turns[-9 * number :][start : start + 9] for start in range(0, 9 * number, 9)]
    assert all(order[::3] == order[1::3] == order[2::3] for order in orders)
    return [order[::3] for order in orders]


def test_every_round_has_an_order_of_its_own_and_the_next_its_reverse(machine, monkeypatch):
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0)
    time_in_turns(machine.openers, [], Effort(60, 0.05, 1))
    orders = rounds_of(machine, 60)
    assert {"".join(sorted(order)) for order in orders} == {"ABC"}
    assert {order[1:] for order in orders} == {"AB", "BA", "AC", "CA", "BC", "CB"}  # each follows each
    assert [order[::-1] for order in orders[::2]] == orders[1::2]  # what grows slower hits all alike


def test_equal_measurements_have_equal_orders(machine):
    time_in_turns(machine.openers, [], ONE)
    before, machine.turns = machine.turns, ""
    time_in_turns(machine.openers, [], ONE)
    assert machine.turns == before


def test_every_turn_opens_its_model_anew_while_the_one_before_still_takes_its_place(machine):
    time_in_turns(machine.openers, [], ONE)
    first, rounds = machine.opened[:3], machine.opened[3:]
    assert (first, len(rounds)) == ("ABC", 3 * 12)
    assert all(sorted(rounds[start : start + 3]) == ["A", "B", "C"] for start in range(0, 36, 3))
    assert machine.kept[6:] == [2] * 33


def test_a_turn_begins_when_the_threads_of_the_one_before_have_stopped(machine, monkeypatch):
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0)
    machine.record = []
    call = Call.__call__

    def record(self) -> None:
        machine.record.append((self.name, machine.busy))
        call(self)

    monkeypatch.setattr(Call, "__call__", record)
    time_in_turns(machine.openers, [], ONE)
    assert [busy for _, busy in machine.record[-9 * 12 :][1::3]] == [0.0] * 36  # the call before each sample
    monkeypatch.setattr(timing, "MAX_POLLS", 1)
    time_in_turns(machine.openers, [], ONE)
    assert any(busy > 0 for _, busy in machine.record[-9 * 12 :][1::3])


def test_a_process_that_never_rests_is_measured_all_the_same(machine):
    machine.spinning = dict.fromkeys("ABC", math.inf)
    samples = time_in_turns(machine.openers, [], ONE)
    assert samples["C"] == pytest.approx(np.full(12, 50))


def test_short_calls_are_repeated_until_a_sample_lasts_long_enough(machine):
    time_in_turns(machine.openers, [], ONE)
    repeats = {"A": round(0.02 / 0.001), "B": round(0.02 / 0.004), "C": 1}
    last = machine.turns[-sum(repeats.values()) - 6 :]
    order = dict.fromkeys(last)
    assert sorted(order) == ["A", "B", "C"]
    assert last == "".join(name * (2 + repeats[name]) for name in order)


def test_models_of_like_speed_are_repeated_equally_often():
    assert choose_repeats({"A": 0.001, "B": 0.0019}) == {"A": 20, "B": 20}
    assert choose_repeats({"B": 0.0019, "A": 0.001}) == {"A": 20, "B": 20}
    assert choose_repeats({"A": 0.001, "B": 0.0021}) == {"A": 20, "B": round(0.02 / 0.0021)}
    assert choose_repeats({"A": 0.1, "B": 0.001, "C": 3.0, "D": 0.0011}) == {"B": 20, "D": 20, "A": 1, "C": 1}
    assert choose_repeats({"A": 0.0}) == {"A": round(0.02 / 1e-9)}  # below what the clock can tell


def test_the_fastest_of_several_calls_decides_about_repeats_so_that_a_slow_moment_does_not(machine):
    calls = iter(range(10**6))
    machine.slowness = lambda: 1.0 if next(calls) == 5 else 10.0
    time_in_turns({"A": machine.openers["A"]}, [], ONE)
    assert len(machine.turns) == 1 + timing.TRIALS + 12 * (20 + 2)


def test_few_calls_of_a_slow_model_decide_about_repeats(machine):
    machine.seconds["C"] = 60.0
    time_in_turns({"C": machine.openers["C"]}, [], ONE)
    assert len(machine.turns) == 2 + 12 * 3


@pytest.mark.parametrize(("effort", "milliseconds"), [(ONE, 1.0), (TWO, 4.0)])
def test_the_time_that_others_have_the_core_is_not_that_of_one_thread_but_of_threads_that_wait(
    machine, effort, milliseconds
):
    machine.waits = lambda: 0.003
    samples = time_in_turns(machine.openers, [], effort)
    assert samples["A"] == pytest.approx(np.full(12, milliseconds))


def noise(machine: SimpleNamespace, spread: float, seed: int = 0) -> None:
    """Let calls take longer by chance, one by one."""
    chance = np.random.default_rng(seed)
    machine.slowness = lambda: math.exp(spread * chance.standard_normal())


def test_rounds_end_at_the_first_look_at_which_every_interval_is_narrow_enough(machine, monkeypatch):
    monkeypatch.setattr(timing, "MAX_SECONDS", math.inf)
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0)
    found = set()
    for spread in (0, 0.03, 0.05, 0.08, 0.4):
        noise(machine, spread)
        samples = time_in_turns(machine.openers, [("A", "B"), ("B", "C")], ONE)
        rounds = len(samples["A"])
        found.add(rounds)
        looks = [factor * ONE.rounds for factor in LOOKS if factor * ONE.rounds <= rounds]
        assert looks[-1] == rounds
        for look in looks:
            precise = all(
                compare_ratio(samples[name][:look], samples[other][:look], 0.05)["precise"]
                for name, other in (("A", "B"), ("B", "C"))
            )
            assert precise == (look == rounds) or look == LOOKS[-1] * ONE.rounds
    assert {12, 96} < found


def test_rounds_do_not_go_on_beyond_the_seconds_but_there_are_as_many_as_the_effort_says(machine, monkeypatch):
    time_in_turns(machine.openers, [], ONE)
    seconds = machine.now  # of 12 rounds
    monkeypatch.setattr(timing, "compare_ratio", lambda *_: {"precise": False})
    for limit, rounds in ((0.1, 12), (1.5, 12), (2.5, 24), (4.5, 48), (100, 96)):
        monkeypatch.setattr(timing, "MAX_SECONDS", limit * seconds)
        assert len(time_in_turns(machine.openers, [("A", "B")], ONE)["A"]) == rounds


def test_a_model_is_no_faster_than_itself_on_a_machine_that_slows_down_every_second_turn_and_for_whole_rounds(
    machine, monkeypatch
):
    """By the order of turns: every measurement sees the same slow moments, and another order of the two."""
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0)
    chance, verdicts = np.random.default_rng(0), []
    machine.seconds["B"] = machine.seconds["A"]
    machine.spinning = dict.fromkeys("ABC", 0.0)
    for seed in range(40):
        monkeypatch.setattr(timing.random, "Random", lambda _, seed=seed: SimpleNamespace(shuffle=shuffler(seed)))
        calls, slow = iter(range(10**9)), np.repeat(chance.exponential(size=1000), 7)

        def slowness(calls=calls, slow=slow) -> float:
            number = next(calls)
            return (1.5 if number // 3 % 2 else 1.0) * (1 + slow[number % len(slow)] + 0.02 * chance.exponential())

        machine.slowness, machine.turns, machine.opened, machine.closed = slowness, "", "", ""
        openers = {name: machine.openers[name] for name in "AB"}
        samples = time_in_turns(openers, [("A", "B")], Effort(30, 0.05, 1))
        verdicts.append(compare_ratio(samples["A"], samples["B"], 0.05)["verdict"])
    assert verdicts.count("no difference") >= 38


def shuffler(seed: int):
    return np.random.default_rng(seed).shuffle
