"""Allocation prunes most where accuracy falls least; a target is met, or the error names the closest share."""

from types import SimpleNamespace

import pytest

from lightweight.core.errors import InputError
from lightweight.pruning.allocation import GRID, allocate, amount_within_drop, amounts_for_target, measure_curves
from tests.examples import BNNET, groups_of, new, noise, prune_params

TOUGH = [(0.0, 0.0), *((amount, 0.0) for amount in GRID)]
FRAIL = [(0.0, 0.0), *((amount, amount) for amount in GRID)]


def test_a_curve_never_falls_whatever_noise_does_to_accuracy():
    probes = dict(zip(GRID, (0.9, 0.95, 0.7, 0.8, 0.5, 0.6), strict=True))
    groups = SimpleNamespace(sizes={"layer": 10})
    probe = SimpleNamespace(groups=groups, accuracy=0.92, measure_group=lambda group, amount: probes[amount])
    drops = [drop for _, drop in measure_curves(probe)["layer"]]
    assert drops == pytest.approx([0, 0.02, 0.02, 0.22, 0.22, 0.42, 0.42])


def test_the_amount_within_a_drop_lies_on_the_curve():
    curve = [(0.0, 0.0), (0.5, 0.0), (0.7, 0.1), (0.9, 0.5)]
    assert amount_within_drop(curve, 0.0) == pytest.approx(0.5)
    assert amount_within_drop(curve, 0.05) == pytest.approx(0.6)
    assert amount_within_drop(curve, 0.3) == pytest.approx(0.8)
    assert amount_within_drop(curve, 0.9) == 0.9


def test_the_group_that_loses_no_accuracy_is_pruned_first():
    def cost(amounts: dict[str, float]) -> float:
        return 1 - sum(amounts.values()) / 2

    amounts = allocate({"tough": TOUGH, "frail": FRAIL}, cost, 0.55)
    assert amounts == {"tough": pytest.approx(0.9, abs=1e-5), "frail": pytest.approx(0.0, abs=1e-5)}
    amounts = allocate({"tough": TOUGH, "frail": FRAIL}, cost, 0.4)
    assert amounts["frail"] == pytest.approx(0.25, abs=1e-5)
    assert cost(amounts) == pytest.approx(0.4, abs=1e-5)


@pytest.mark.parametrize(("method", "kind"), [("unstructured", "parameters"), ("structured", "macs")])
def test_a_target_is_met_by_the_pruned_network_itself(method, kind):
    groups = groups_of(new(BNNET), prune_params(method=method), noise())
    amounts = amounts_for_target(dict.fromkeys(groups.sizes, FRAIL), groups, kind, 0.4)
    wanted = {name: groups.allowed_count(round(amounts[name] * size), name) for name, size in groups.sizes.items()}
    assert 0.3 < groups.cost(wanted, kind) <= 0.4


def test_the_error_for_a_target_out_of_reach_names_the_closest_share():
    groups = groups_of(new(BNNET), prune_params(), noise())
    with pytest.raises(InputError) as error:
        amounts_for_target(dict.fromkeys(groups.sizes, FRAIL), groups, "parameters", 0.01)
    closest = float(str(error.value).removesuffix(" is left").rpartition(" ")[2])
    assert str(error.value).startswith("params.yaml: prune.target_parameters = 0.01: cannot be met: with 95% of ")
    assert 0.05 < closest < 0.06  # biases and BatchNorm stay
