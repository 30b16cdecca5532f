"""Weights that stay cost least, by e^T H e, among all with the same zeros."""

import pytest
import torch
from torch import Tensor

from lightweight.gram.ldl import damp
from lightweight.reconstruction import least_squares
from lightweight.reconstruction.least_squares import refit
from tests.gram.test_matmul import random
from tests.gram.test_sweep import correlated, energy


def random_mask(*shape: int, share: float = 0.6) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(5)) > share


def best(weights: Tensor, kept: Tensor, matrix: Tensor) -> Tensor:
    """Solve each row by itself with LAPACK, for the damped matrix."""
    damped, solution = damp(matrix), torch.zeros_like(weights)
    for group, row in torch.cartesian_prod(*map(torch.arange, weights.shape[:2])).tolist():
        stays = kept[group, row]
        change = torch.linalg.lstsq(
            damped[group][stays][:, stays], damped[group][stays][:, ~stays] @ weights[group, row, ~stays]
        )
        solution[group, row, stays] = weights[group, row, stays] + change.solution
    return solution


@pytest.mark.parametrize("columns", [12, 150])
def test_rows_that_have_lost_the_same_weights_get_the_least_squares_solution(columns):
    weights, matrix = random(2, 6, columns), correlated(2, columns)
    kept = random_mask(2, 1, columns).expand(2, 6, columns).clone()
    expected = best(weights, kept, matrix)
    torch.testing.assert_close(refit(weights, kept, matrix), expected, rtol=1e-6, atol=1e-6)


def test_rows_without_any_weight_stay_without_and_disturb_no_other():
    weights, matrix = random(1, 6, 20), correlated(1, 20)
    kept = random_mask(1, 1, 20).expand(1, 6, 20).clone()
    expected = refit(weights, kept, matrix)
    kept[:, 2:4] = False
    fitted = refit(weights, kept, matrix)
    assert fitted[:, 2:4].eq(0).all()
    torch.testing.assert_close(fitted[:, [0, 1, 4, 5]], expected[:, [0, 1, 4, 5]])


@pytest.mark.parametrize("columns", [12, 150])
def test_rows_with_zeros_of_their_own_come_close_to_the_least_squares_solution(columns, monkeypatch):
    weights, matrix, kept = random(2, 6, columns), correlated(2, columns), random_mask(2, 6, columns)
    damped = damp(matrix)
    least = energy(weights - best(weights, kept, matrix), damped)
    fitted = energy(weights - refit(weights, kept, matrix), damped)
    monkeypatch.setattr(least_squares, "STEPS", 0)
    swept = energy(weights - refit(weights, kept, matrix), damped)
    zeroed = energy(weights - weights * kept, damped)
    assert least * (1 - 1e-9) <= fitted < 1.05 * least
    assert fitted < swept < 0.5 * zeroed


def test_what_is_pruned_is_exactly_zero_and_what_is_whole_does_not_change():
    weights, matrix, kept = random(2, 6, 40), correlated(2, 40), random_mask(2, 6, 40)
    kept[1, 3] = True
    fitted = refit(weights, kept, matrix)
    assert torch.equal(fitted != 0, kept)
    assert not torch.signbit(fitted[~kept]).any()
    assert torch.equal(fitted[1, 3], weights[1, 3])


def test_inputs_that_are_always_zero_leave_the_other_weights_alone():
    weights, kept = random(1, 3, 8), random_mask(1, 3, 8)
    assert torch.equal(refit(weights, kept, torch.zeros(1, 8, 8).double()), weights * kept)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(threads):
    weights, matrix, kept = random(2, 16, 200), correlated(2, 200), random_mask(2, 16, 200)
    expected, before = refit(weights, kept, matrix), torch.get_num_threads()
    torch.set_num_threads(threads)
    fitted = refit(weights, kept, matrix)
    torch.set_num_threads(before)
    assert torch.equal(fitted, expected)
