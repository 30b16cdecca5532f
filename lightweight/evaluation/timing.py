"""Times of several models, measured in turns in one process, so that a slow moment of the machine hits them all.

In every round each model is opened anew and timed once, in random order. Where its weights lie in memory makes copies
of one file differ by a percent; opened anew, they differ now to one side and now to the other, as everything else that
is chance does. So a model that is compared with itself wins half of the rounds, however busy the machine is.

One thread is timed by the processor time of the process, which stops while another process has the core. Several
threads wait for each other, which takes no processor time, and are timed by the clock on the wall.

The threads of a runtime spin on after a call (ONNX Runtime's for about 60 ms) and would take the cores of whichever
model is called next. Therefore a turn begins only when the process is idle.
"""

import random
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np

from lightweight.evaluation.latency import LOOKS, compare_ratio

POLL_SECONDS = 0.005  # between two checks whether threads still spin
MAX_POLLS = 200  # where something else in the process never rests
SAMPLE_SECONDS = 0.02  # shorter calls are repeated until a sample lasts this long
TRIALS = 10  # of single calls, of which the fastest decides about repeats, or fewer in
TRIAL_SECONDS = 0.2
ALIKE = 2.0  # models that differ by less in these are repeated equally often
MAX_SECONDS = 20.0  # rounds do not go on beyond, but there are always as many as the effort says

Name = TypeVar("Name", bound=Hashable)
Call = Callable[[], object]
Opener = Callable[[], Call]  # opens a model anew, and returns what computes its logits for the same images
Clock = Callable[[], float]


@dataclass(frozen=True)
class Effort:
    """Hold how many rounds there are at least, the relative half width at which an interval is narrow, and threads."""

    rounds: int
    precision: float
    threads: int

    @property
    def clock(self) -> Clock:
        """Choose the clock: processor time of one thread, else time on the wall."""
        return time.process_time if self.threads == 1 else time.perf_counter


def time_in_turns(
    openers: Mapping[Name, Opener], pairs: Collection[tuple[Name, Name]], effort: Effort
) -> dict[Name, np.ndarray]:
    """Time every model once a round, and return milliseconds per call (rounds,) by name.

    Rounds go on until the speed of each pair (model, reference) is known by a narrow interval, which is looked at after
    1, 2, 4 and 8 times `effort.rounds`, or until the next look would come after `MAX_SECONDS`.
    """
    start = time.perf_counter()
    turns = take_turns(openers, effort.clock)
    rows: list[dict[Name, float]] = []
    for factor in LOOKS:
        rows += islice(turns, factor * effort.rounds - len(rows))
        samples = {name: np.array([row[name] for row in rows]) for name in openers}
        ratios = [compare_ratio(samples[name], samples[reference], effort.precision) for name, reference in pairs]
        if all(ratio["precise"] for ratio in ratios) or 2 * (time.perf_counter() - start) > MAX_SECONDS:
            break
    return samples


def take_turns(openers: Mapping[Name, Opener], clock: Clock) -> Iterator[dict[Name, float]]:
    """Time every model once a round, in random order and then in the reverse; yields milliseconds per call by name."""
    repeats = choose_repeats({name: seconds_of_fastest(opener(), clock) for name, opener in openers.items()})
    order, chance = list(openers), random.Random(0)
    opened: dict[Name, Call] = {}  # what was opened before is closed afterwards, so that the new lies elsewhere
    while True:
        chance.shuffle(order)
        for turns in (order, order[::-1]):
            times = {}
            for name in turns:
                call = opened[name] = openers[name]()
                call()
                _wait_until_idle()
                call()
                times[name] = 1000 * _seconds_per_call(call, repeats[name], clock)
            yield times


def choose_repeats(seconds: Mapping[Name, float]) -> dict[Name, int]:
    """Choose how often each model is called for a sample, by its seconds per call; alike models equally often."""
    repeats: dict[Name, int] = {}
    fastest = number = 0.0
    for name in sorted(seconds, key=lambda name: seconds[name]):
        if not repeats or seconds[name] >= ALIKE * fastest:
            fastest = max(seconds[name], 1e-9)
            number = max(1, round(SAMPLE_SECONDS / fastest))
        repeats[name] = int(number)
    return repeats


def seconds_of_fastest(call: Call, clock: Clock) -> float:
    """Return the seconds of the fastest of several calls, after one that is not timed."""
    call()
    start = time.perf_counter()
    times: list[float] = []
    while len(times) < TRIALS and (not times or time.perf_counter() - start < TRIAL_SECONDS):
        times.append(_seconds_per_call(call, 1, clock))
    return min(times)


def _wait_until_idle() -> None:
    """Wait until no thread of this process runs, at most one second."""
    before = time.process_time()
    for _ in range(MAX_POLLS):
        time.sleep(POLL_SECONDS)
        now = time.process_time()
        if now - before < 0.1 * POLL_SECONDS:
            return
        before = now


def _seconds_per_call(call: Call, repeats: int, clock: Clock) -> float:
    start = clock()
    for _ in range(repeats):
        call()
    return (clock() - start) / repeats
