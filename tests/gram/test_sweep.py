"""Columns that are left make up for the change of those that were chosen."""

import itertools

import pytest
import torch

from lightweight.gram.ldl import damp
from lightweight.gram.sweep import sweep
from tests.gram.test_matmul import random


def correlated(groups: int, columns: int) -> torch.Tensor:
    inputs = random(groups, columns, 3) @ random(groups, 3, 200, seed=1) + 0.3 * random(groups, columns, 200, seed=2)
    return inputs @ inputs.mT


def energy(change: torch.Tensor, matrix: torch.Tensor) -> float:
    return float((change @ matrix * change).sum())


def test_targets_that_are_taken_as_they_are_give_the_weights():
    weights = random(2, 4, 300)
    chosen = sweep(weights, correlated(2, 300), lambda targets, columns, costs: targets.clone())
    torch.testing.assert_close(chosen, weights)


def test_rounding_by_columns_costs_less_than_each_weight_by_itself():
    weights, matrix = random(3, 8, 40), correlated(3, 40)
    rounded = sweep(weights, matrix, lambda targets, columns, costs: targets.round())
    assert energy(weights - rounded, matrix) < 0.3 * energy(weights - weights.round(), matrix)
    assert torch.equal(rounded, rounded.round())


def test_the_last_column_takes_the_best_integer_for_those_before():
    """Of all integers of the column that is chosen last, the one taken costs least."""
    weights, matrix = random(1, 5, 6), damp(correlated(1, 6))
    rounded = sweep(weights, matrix, lambda targets, columns, costs: targets.round())
    last = int(matrix[0].diagonal().argmin())
    for step in (-1, 1):
        changed = rounded.clone()
        changed[..., last] += step
        assert energy(weights - changed, matrix) > energy(weights - rounded, matrix)


@pytest.mark.parametrize("columns", [7, 130])
def test_the_cost_is_the_sum_of_the_costs_of_columns(columns):
    """e^T H e = sum of D_j (target_j - q_j)^2, which is why each column can be chosen by itself."""
    weights, matrix = random(2, 3, columns), damp(correlated(2, columns))
    costs = []

    def choose(targets: torch.Tensor, indices: torch.Tensor, cost: torch.Tensor) -> torch.Tensor:
        costs.append(((targets - targets.round()).square() * damped_cost(cost)).sum())
        return targets.round()

    def damped_cost(cost: torch.Tensor) -> torch.Tensor:
        return cost[:, None]

    rounded = sweep(weights, matrix, choose)
    assert float(torch.stack(costs).sum()) == pytest.approx(energy(weights - rounded, damp(matrix)), rel=1e-6)


def test_the_result_is_the_same_for_any_order_of_the_columns():
    weights, matrix = random(1, 4, 50), correlated(1, 50)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    rounded = sweep(weights, matrix, lambda targets, columns, costs: targets.round())
    permuted = sweep(
        weights[..., order], matrix[:, order][:, :, order], lambda targets, columns, costs: targets.round()
    )
    torch.testing.assert_close(permuted, rounded[..., order])


def test_a_choice_knows_the_column_of_each_matrix():
    weights, matrix = random(2, 3, 10), correlated(2, 10)
    seen = []

    def choose(targets: torch.Tensor, columns: torch.Tensor, costs: torch.Tensor) -> torch.Tensor:
        seen.append(columns.tolist())
        return weights[torch.arange(2), :, columns]

    assert torch.equal(sweep(weights, matrix, choose), weights)
    for group, places in enumerate(zip(*seen, strict=True)):
        diagonal = matrix[group].diagonal()
        assert list(places) == sorted(range(10), key=lambda place: -float(diagonal[place]))
        assert all(left >= right for left, right in itertools.pairwise(float(diagonal[place]) for place in places))


def test_columns_of_a_higher_priority_are_chosen_first():
    seen = []

    def choose(targets: torch.Tensor, columns: torch.Tensor, costs: torch.Tensor) -> torch.Tensor:
        seen.append(columns.tolist())
        return targets

    priority = torch.tensor([[3, 1, 2], [1, 2, 3]])
    sweep(random(2, 4, 3), correlated(2, 3), choose, priority)
    assert seen == [[0, 2], [2, 1], [1, 0]]
