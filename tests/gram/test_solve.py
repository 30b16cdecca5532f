"""Triangular systems and inverses agree with LAPACK, in blocks as without."""

import pytest
import torch

from lightweight.gram.ldl import damp, factorize
from lightweight.gram.solve import inverse_diagonal, solve_lower
from tests.gram.test_matmul import random
from tests.gram.test_sweep import correlated


@pytest.mark.parametrize("size", [1, 7, 128, 300])
def test_a_solution_solves_the_system(size):
    factors, right = factorize(damp(correlated(2, size))), random(2, size, 5)
    solution = solve_lower(factors.lower, right)
    expected = torch.linalg.solve_triangular(factors.lower, right, upper=False, unitriangular=True)
    torch.testing.assert_close(solution, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))
    assert torch.equal(right, random(2, size, 5))


@pytest.mark.parametrize("size", [1, 7, 128, 300])
def test_the_diagonal_is_that_of_the_inverse(size):
    matrix = damp(correlated(2, size))
    expected = torch.linalg.inv(matrix).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(inverse_diagonal(factorize(matrix)), expected, rtol=1e-6, atol=0.0)
