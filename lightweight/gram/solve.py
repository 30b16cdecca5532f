"""Triangular systems and inverses from the factors L D L^T, with the same bits on every CPU."""

import torch
from torch import Tensor

from lightweight.gram.ldl import LDL
from lightweight.gram.matmul import exact_matmul

BLOCK = 128  # rows whose effect on those below is applied together


def solve_lower(lower: Tensor, right: Tensor) -> Tensor:
    """Solve L X = B for unit lower triangular matrices L (G, K, K) and B (G, K, N) of float64, from the first row."""
    solution, size = right.clone(), right.shape[-2]
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        rows = solution[..., start:stop, :]
        for place in range(start, stop - 1):
            below = lower[..., place + 1 : stop, place, None]
            rows[..., place + 1 - start :, :] -= below * rows[..., place - start, None, :]
        if stop < size:
            solution[..., stop:, :] -= exact_matmul(lower[..., stop:, start:stop], rows)
    return solution


def inverse_diagonal(factors: LDL) -> Tensor:
    """Compute the diagonals (G, K) of the inverses of the matrices that have these factors.

    With M, the inverse of L, the inverse of L D L^T is M^T D^-1 M.
    """
    lower = factors.lower
    identity = torch.eye(lower.shape[-1], dtype=lower.dtype).expand_as(lower)
    inverse = solve_lower(lower, identity)
    return inverse.square_().div_(factors.diagonal[..., None]).cumsum(-2)[..., -1, :]
