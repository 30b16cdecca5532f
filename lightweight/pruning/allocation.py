"""A budget decides how much each unit loses: those go first whose loss alone hurts least.

With the drop that each may cause as the single unknown, amounts follow from the sensitivity curves, and the cost of
the network falls as it rises; so a target is found by bisection.
"""

from collections.abc import Callable
from itertools import pairwise

from lightweight.core.errors import bad_param
from lightweight.pruning.groups import PruningGroups, counts_to_prune
from lightweight.pruning.probe import SensitivityProbe

GRID = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)  # amounts at which the curves are measured
STEPS = 20  # halvings of the drop, which is then known to a millionth

Curve = list[tuple[float, float]]  # amount, drop in accuracy; both rise


def measure_curves(probe: SensitivityProbe) -> dict[str, Curve]:
    """The curve of every unit; noise that lets accuracy rise with the amount is left out."""
    curves = {}
    for group in probe.groups.sizes:
        curve = [(0.0, 0.0)]
        for amount in GRID:
            curve.append((amount, max(curve[-1][1], probe.accuracy - probe.alone(group, amount))))
        curves[group] = curve
    return curves


def amount_within_drop(curve: Curve, drop: float) -> float:
    """The largest amount for which the curve, linear between its points, is at most `drop`; 0 below its begin."""
    if drop < 0:
        return 0.0
    for (low, before), (high, after) in pairwise(curve):
        if after > drop:
            return low + (high - low) * (drop - before) / (after - before)
    return curve[-1][0]


def allocate(curves: dict[str, Curve], cost: Callable[[dict[str, float]], float], target: float) -> dict[str, float]:
    """Amounts by unit whose `cost` is `target` or little less, at an even drop as small as possible; else the cheapest.

    Where a curve is flat, amounts jump as the drop rises: then all go the same share of the way.
    """

    def at(drop: float) -> dict[str, float]:
        return {group: amount_within_drop(curve, drop) for group, curve in curves.items()}

    low, high = -1.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(at(middle)) <= target else (middle, high)
    less, more = at(low), at(high)

    def between(share: float) -> dict[str, float]:
        return {group: less[group] + share * (more[group] - less[group]) for group in curves}

    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(between(middle)) <= target else (middle, high)
    return between(high)


def amounts_for_target(curves: dict[str, Curve], groups: PruningGroups, kind: str, target: float) -> dict[str, float]:
    """Amounts that leave a share of the "parameters" or "macs". Raises InputError with the closest where none do."""

    def cost(amounts: dict[str, float]) -> float:
        return groups.cost(counts_to_prune(groups, amounts, "layer", {}), kind)

    amounts = allocate(curves, cost, target)
    if (closest := cost(amounts)) > target:
        rule = f"cannot be met: with {GRID[-1]:.0%} of everything chosen pruned, {closest:.4f} is left"
        raise bad_param(f"prune.target_{kind}", target, rule)
    return amounts
