"""A budget decides how much of each pruning group goes: the groups whose loss alone costs least lose most.

The accuracy that each group may cost alone is the single unknown. Amounts follow from it by the sensitivity curves, and
the cost of the network falls as it rises, so the amounts for a target are found by bisection.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from lightweight.core.errors import bad_param
from lightweight.pruning.groups import PruningGroups, counts_to_prune
from lightweight.pruning.probe import SensitivityProbe

GRID = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)  # the amounts at which curves are measured
STEPS = 20  # of a bisection: the interval is then a millionth of what it was

Curve = list[tuple[float, float]]  # pairs of an amount and the drop in accuracy that it causes; both rise


def bisect(holds: Callable[[float], bool], low: float, high: float, steps: int) -> tuple[float, float]:
    """Halve the interval [low, high] so often; its lower end moves up where `holds` is true of the middle."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
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
    for (low, before), (high, after) in pairwise(curve):
        if after > drop:
            return low + (high - low) * (drop - before) / (after - before)
    return curve[-1][0]


def allocate(curves: dict[str, Curve], cost: Callable[[dict[str, float]], float], target: float) -> dict[str, float]:
    """Choose an amount per group such that `cost` is at most `target`, at the same and smallest drop for all groups.

    Where a curve is flat, amounts jump as the drop rises: then all groups go the same share of the way from the amounts
    before the jump to those after it. Without a solution these are the amounts of the lowest cost.
    """

    def at_drop(drop: float) -> dict[str, float]:
        return {group: amount_within_drop(curve, drop) for group, curve in curves.items()}

    low, high = bisect(lambda drop: cost(at_drop(drop)) > target, -1.0, 1.0, STEPS)
    less, more = at_drop(low), at_drop(high)

    def between(share: float) -> dict[str, float]:
        return {group: less[group] + share * (more[group] - less[group]) for group in curves}

    _, share = bisect(lambda share: cost(between(share)) > target, 0.0, 1.0, STEPS)
    return between(share)


def amounts_for_target(
    curves: dict[str, Curve], groups: PruningGroups, kind: Literal["parameters", "macs"], target: float
) -> dict[str, float]:
    """Choose an amount per group that leaves the share `target` of the parameters or MACs.

    Raises InputError with the closest share where no amounts do.
    """

    def cost(amounts: dict[str, float]) -> float:
        return groups.cost(counts_to_prune(groups, amounts, "layer", {}), kind)

    amounts = allocate(curves, cost, target)
    if (closest := cost(amounts)) > target:
        rule = f"cannot be met: with {GRID[-1]:.0%} of everything chosen pruned, {closest:.4f} is left"
        raise bad_param(f"prune.target_{kind}", target, rule)
    return amounts
