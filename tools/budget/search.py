"""The search for the smallest or fastest file inside the drop: a bisection of the share that is pruned, by method.

More pruning gives a smaller file and, but for chance, a less accurate one. So the largest share inside the drop is
bisected: first with the method whose unpruned file costs least, under both allocations of channels, then with the other
methods under the better allocation, from the share that they must exceed to win.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

from tools.budget.candidate import METHODS, STEPS, Allocation, Candidate, Objective
from tools.budget.trial import Trial, TrialFailed

Run = Callable[[Candidate], Trial]


@dataclass
class Search:
    """Search with `run`; every trial is kept, and told to `notice`, in the order in which it was made."""

    run: Run
    objective: Objective
    max_drop: float
    notice: Callable[[list[Trial]], None] = lambda trials: None
    trials: list[Trial] = field(default_factory=list)

    def find(self) -> Trial | None:
        """Return the best trial inside the drop, or None where there is none, not even without pruning."""
        unpruned = [self._try(Candidate(method, "uniform", 0)) for method in METHODS[self.objective]]
        order = sorted((trial for trial in unpruned if trial and self._inside(trial)), key=self._cost)
        for place, start in enumerate(order):
            allocations: tuple[Allocation, ...] = get_args(Allocation)
            best = self.best
            if place and best:
                allocations = (best.candidate.allocation,)
            for allocation in allocations:
                self._bisect(start.candidate.method, allocation, best.candidate.steps if place and best else 0)
        return self.best

    @property
    def best(self) -> Trial | None:
        """Return the trial inside the drop that costs least; of equal ones the more accurate."""
        inside = filter(self._inside, self.trials)
        return min(inside, key=lambda trial: (self._cost(trial), -trial.accuracy), default=None)

    def _bisect(self, method: str, allocation: Allocation, inside: int) -> None:
        """Bisect the steps that are pruned, between some that are taken to be inside the drop, and all."""
        outside = STEPS
        while outside - inside > 1:
            middle = (inside + outside) // 2
            if self._inside(self._try(Candidate(method, allocation, middle))):
                inside = middle
            else:
                outside = middle

    def _try(self, candidate: Candidate) -> Trial | None:
        try:
            trial = self.run(candidate)
        except TrialFailed:  # a file that may not ship is outside
            return None
        self.trials.append(trial)
        self.notice(self.trials)
        return trial

    def _inside(self, trial: Trial | None) -> bool:
        return trial is not None and trial.drop <= self.max_drop

    def _cost(self, trial: Trial) -> float:
        return trial.cost(self.objective)
