"""Allocation: the amount by which each group is pruned follows from a target for the size or MACs of the network.

Groups whose pruning costs little accuracy are pruned more. Each group, pruned alone, may lose the same accuracy: this
drop is the single unknown. The sensitivity curves give the amounts for a drop, and the cost of the network falls as the
drop rises, so the drop that meets the target is found by bisection.
"""

from collections.abc import Callable
from itertools import pairwise

from lightweight.core.errors import bad_param
from lightweight.pruning.amounts import counts_to_prune
from lightweight.pruning.groups import Cost, PruningGroups
from lightweight.pruning.probe import SensitivityProbe

GRID = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)  # the amounts at which sensitivity curves are measured
STEPS = 20  # of a bisection: they make the interval a million times smaller

Curve = list[tuple[float, float]]  # pairs of an amount and the drop in accuracy that it causes; both rise


def bisect(is_low: Callable[[float], bool], low: float, high: float, steps: int) -> tuple[float, float]:
    """Bisect the interval [low, high] `steps` times, to the upper half where `is_low` is true of the middle."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if is_low(middle) else (low, middle)
    return low, high


def measure_curves(probe: SensitivityProbe) -> dict[str, Curve]:
    """Measure the drop in accuracy of every group at the amounts of `GRID`; a drop never falls as the amount rises."""
    curves = {}
    for group in probe.groups.sizes:
        curve = [(0.0, 0.0)]
        for amount in GRID:
            curve.append((amount, max(curve[-1][1], probe.accuracy - probe.measure_group(group, amount))))
        curves[group] = curve
    return curves


def amount_within_drop(curve: Curve, drop: float) -> float:
    """Return the largest amount whose drop on the curve, linear between its points, is at most `drop`; 0 if none is."""
    if drop < 0:
        return 0.0
    for (low, low_drop), (high, high_drop) in pairwise(curve):
        if high_drop > drop:
            return low + (high - low) * (drop - low_drop) / (high_drop - low_drop)
    return curve[-1][0]


def allocate(curves: dict[str, Curve], cost: Callable[[dict[str, float]], float], target: float) -> dict[str, float]:
    """Choose amounts by group with `cost`, a share in [0, 1], at most `target`, at the smallest drop, equal for all.

    Where a curve is flat, amounts jump as the drop rises: then all groups go the same share of the way from the amounts
    before the jump to those after it. If no amounts meet the target, returns the amounts of the lowest cost.
    """

    def at_drop(drop: float) -> dict[str, float]:
        return {group: amount_within_drop(curve, drop) for group, curve in curves.items()}

    low, high = bisect(lambda drop: cost(at_drop(drop)) > target, -1.0, 1.0, STEPS)
    less, more = at_drop(low), at_drop(high)

    def between(share: float) -> dict[str, float]:
        return {group: less[group] + share * (more[group] - less[group]) for group in curves}

    _, share = bisect(lambda share: cost(between(share)) > target, 0.0, 1.0, STEPS)
    return between(share)


def amounts_for_target(curves: dict[str, Curve], groups: PruningGroups, kind: Cost, target: float) -> dict[str, float]:
    """Choose an amount per group such that the share `target` of the parameters or MACs stays, or slightly less.

    Raises InputError with the closest share where no amounts meet the target.
    """

    def cost(amounts: dict[str, float]) -> float:
        return groups.cost(counts_to_prune(groups, amounts, "layer", {}), kind)

    amounts = allocate(curves, cost, target)
    if (closest := cost(amounts)) > target:
        rule = f"cannot be met: with {GRID[-1]:.0%} of everything chosen pruned, {closest:.4f} is left"
        raise bad_param(f"prune.target_{kind}", target, rule)
    return amounts
