"""The factors L D L^T of symmetric matrices, with the same bits on every CPU.

With Gram matrix H = L D L^T of a layer's inputs, a change e of a row of weights changes the outputs by
e^T H e = sum over columns j of D_j (e_j + sum over i > j of L_ij e_i)^2. Who fixes the columns from the last to the
first can therefore choose each of them by itself (`sweep` in `columns.py`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightweight.gram.matmul import exact_matmul

BLOCK = 128  # pivots whose effect on the rest of the matrix is applied together
DAMPING = 0.01  # of the mean of the diagonal, added to it, as in Frantar et al. 2022


@dataclass(frozen=True)
class LDL:
    """Hold unit lower triangular matrices L (G, K, K) and diagonals D (G, K), all positive, in float64."""

    lower: Tensor
    diagonal: Tensor


def damp(matrix: Tensor, damping: float = DAMPING) -> Tensor:
    """Add a share of the mean of the diagonal to the diagonals of matrices (G, K, K), so that they are invertible.

    Columns whose inputs are always zero, and layers that no image reached, get a diagonal of 1.
    """
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    added = damping * mean_in_order(diagonal)
    added = torch.where(diagonal + added > 0, added, 1.0)
    return matrix + torch.diag_embed(added)


def mean_in_order(values: Tensor) -> Tensor:
    """Compute the mean over the last dimension, which is kept; the cumulative sum adds in order on every CPU."""
    return values.cumsum(-1)[..., -1:] / values.shape[-1]


def factorize(matrix: Tensor) -> LDL:
    """Factorize positive definite matrices (G, K, K) of float64 into L D L^T; one that is not is damped further."""
    damping = DAMPING
    while True:
        factors = _factorize(matrix)
        if bool((factors.diagonal > 0).all()):
            return factors
        matrix, damping = damp(matrix, damping), 10 * damping


def _factorize(matrix: Tensor) -> LDL:
    rest, size = matrix.clone(), matrix.shape[-1]
    lower, diagonal = torch.zeros_like(rest), torch.zeros_like(rest[..., 0])
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        rows = rest[..., start:, start:stop].mT.contiguous()  # of the upper triangle: (block, size - start)
        for pivot in range(stop - start):
            diagonal[..., start + pivot] = rows[..., pivot, pivot]
            column = rows[..., pivot, pivot:] / rows[..., pivot, pivot, None]
            lower[..., start + pivot :, start + pivot] = column
            within = column[..., 1 : stop - start - pivot, None]
            rows[..., pivot + 1 :, pivot + 1 :] -= within * rows[..., pivot, None, pivot + 1 :]
        if stop < size:
            factors = lower[..., stop:, start:stop]
            rest[..., stop:, stop:] -= exact_matmul(factors * diagonal[..., None, start:stop], factors.mT)
    return LDL(lower, diagonal)
