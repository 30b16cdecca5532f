"""Choose the weights of a layer column by column; the columns that are left make up for the change of those chosen.

With H = L D L^T (`ldl.py`), columns are chosen from the last to the first: column j aims at w_j + sum over i > j of
L_ij e_i, where e = w - q is the change of the columns chosen so far. That is the update of GPTQ (Frantar et al. 2023)
and SparseGPT (Frantar and Alistarh 2023), by one factorization and no inverse. Columns of large inputs come first.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightweight.gram.ldl import LDL, damp, factorize
from lightweight.gram.matmul import exact_matmul

BLOCK = 128  # columns whose effect on those before is applied together
# Returns what weights (G, rows) of one column of each matrix become, from their targets, the columns' indices (G,), and
# by how much an error of 1 in the column costs at least (G,).
Choose = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sweep:
    """Hold the order (G, K) of the columns of Gram matrices, from the last chosen to the first, and their factors."""

    order: Tensor
    factors: LDL

    def __call__(self, weights: Tensor, choose: Choose) -> Tensor:
        """Choose all columns of float64 weights (G, rows, K) and return them (G, rows, K)."""
        order, factors = self.order, self.factors
        groups = torch.arange(len(order))
        original = weights.mT[groups[:, None], order]  # (G, K, rows), so that a column is contiguous
        targets, changes, chosen = original.clone(), torch.zeros_like(original), torch.empty_like(weights.mT)
        for stop in range(weights.shape[-1], 0, -BLOCK):
            start = max(0, stop - BLOCK)
            for place in range(stop - 1, start - 1, -1):
                values = choose(targets[:, place], order[:, place], factors.diagonal[:, place])
                chosen[groups, order[:, place]] = values
                changes[:, place] = original[:, place] - values
                before = factors.lower[:, place, start:place]
                targets[:, start:place] += before[:, :, None] * changes[:, None, place]
            if start:
                targets[:, :start] += exact_matmul(factors.lower[:, start:stop, :start].mT, changes[:, start:stop])
        return chosen.mT.contiguous()


def prepare_sweep(matrix: Tensor, priority: Tensor | None = None) -> Sweep:
    """Factorize Gram matrices (G, K, K), for sweeps over any weights.

    Columns of the highest `priority` (G, K) come first; without one, those of the largest inputs.
    """
    matrix = damp(matrix)
    priority = matrix.diagonal(dim1=-2, dim2=-1) if priority is None else priority
    order = priority.argsort(dim=-1, stable=True)
    groups = torch.arange(len(order))
    return Sweep(order, factorize(matrix[groups[:, None, None], order[:, :, None], order[:, None, :]]))


def sweep(weights: Tensor, matrix: Tensor, choose: Choose, priority: Tensor | None = None) -> Tensor:
    """Choose all columns of float64 weights (G, rows, K), by Gram matrices (G, K, K), and return them (G, rows, K)."""
    return prepare_sweep(matrix, priority)(weights, choose)
