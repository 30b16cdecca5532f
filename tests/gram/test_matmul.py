"""Products and factors are accurate, and have the same bits whatever the order of their sums."""

import pytest
import torch

from lightweight.gram.ldl import damp, factorize
from lightweight.gram.matmul import exact_matmul, integer_bits


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_product_is_accurate_relative_to_its_rows_and_columns():
    left, right = random(30, 500) * 10.0 ** random(30, 1), random(500, 20, seed=1)
    scale = left.abs().amax(1, keepdim=True) * right.abs().amax(0, keepdim=True)
    assert float(((exact_matmul(left, right) - left @ right) / scale).abs().max()) < 1e-9


def test_a_product_has_the_same_bits_in_any_order_of_its_terms():
    left, right = random(64, 1000), random(1000, 64, seed=1)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(2))
    assert torch.equal(exact_matmul(left[:, order], right[order]), exact_matmul(left, right))
    assert not torch.equal(left[:, order] @ right[order], left @ right)


@pytest.mark.parametrize("terms", [1, 2, 3, 128, 4608, 10**6])
def test_sums_of_products_of_the_largest_integers_are_exact(terms):
    assert terms * (2 ** integer_bits(terms)) ** 2 <= 2**53


def test_zeros_have_a_product():
    assert exact_matmul(torch.zeros(2, 3).double(), random(3, 2)).eq(0).all()


@pytest.mark.parametrize("size", [1, 5, 128, 200, 300])
def test_factors_multiply_to_the_matrix(size):
    inputs = random(2, size, 2 * size)
    matrix = inputs @ inputs.mT
    factors = factorize(matrix)
    assert torch.equal(factors.lower, factors.lower.tril())
    assert factors.lower.diagonal(dim1=-2, dim2=-1).eq(1).all()
    product = factors.lower * factors.diagonal[:, None] @ factors.lower.mT
    torch.testing.assert_close(product, matrix, rtol=1e-9, atol=1e-9 * float(matrix.max()))


def test_a_singular_matrix_is_damped_until_it_has_factors():
    inputs = random(1, 20, 3)
    assert factorize(inputs @ inputs.mT).diagonal.gt(0).all()
    assert factorize(damp(torch.zeros(1, 4, 4).double())).diagonal.eq(1).all()
