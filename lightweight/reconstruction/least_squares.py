"""Refit the weights that stay, so that a layer without its pruned weights gives nearly the outputs that it gave before.

The change e of a row of weights costs e^T H e with the Gram matrix H of the layer's inputs. Where all rows have lost
the same weights, as without a channel, the sweep of SparseGPT (Frantar and Alistarh 2023) over the pruned columns first
is the least-squares solution. Elsewhere, each row has a solution of its own, to which conjugate gradients come close
from the result of the sweep.
"""

import torch
from torch import Tensor

from lightweight.gram.ldl import damp
from lightweight.gram.matmul import exact_matmul
from lightweight.gram.sweep import sweep

STEPS = 30  # of conjugate gradients; each one lowers the cost of every row


def refit(weights: Tensor, kept: Tensor, matrix: Tensor) -> Tensor:
    """Return weights (G, rows, K) of float64 that are zero where not `kept` and cost least by matrices (G, K, K).

    Damping of the matrices draws the weights that stay to what they were.
    """
    swept = _sweep(weights, kept, matrix)
    shared = (kept == kept.any(-2, keepdim=True)) | ~kept.any(-1, keepdim=True)  # rows without weights do not count
    return swept if bool(shared.all()) else _descend(weights, swept, kept, damp(matrix))


def _sweep(weights: Tensor, kept: Tensor, matrix: Tensor) -> Tensor:
    """Prune column by column, those that have lost the most weights first, so that the others make up for them."""
    columns = kept.mT  # (G, K, rows)
    groups = torch.arange(len(kept))

    def choose(targets: Tensor, indices: Tensor, costs: Tensor) -> Tensor:
        return torch.where(columns[groups, indices], targets, 0.0)

    return sweep(weights, matrix, choose, (~columns).sum(-1))


def _descend(weights: Tensor, start: Tensor, kept: Tensor, matrix: Tensor) -> Tensor:
    """Lower the cost of every row by conjugate gradients within the weights that are kept, scaled by the diagonal."""
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)[:, None]
    chosen = start.clone()
    residual = _product(weights - start, matrix, kept)
    direction = scaled = residual / diagonal
    fall = _sum(residual * scaled)
    for _ in range(STEPS):
        bent = _product(direction, matrix, kept)
        step = _ratio(fall, _sum(direction * bent))
        chosen += step * direction
        residual = residual - step * bent
        scaled = residual / diagonal
        fall, before = _sum(residual * scaled), fall
        direction = scaled + _ratio(fall, before) * direction
    return chosen


def _product(rows: Tensor, matrix: Tensor, kept: Tensor) -> Tensor:
    return exact_matmul(rows, matrix).where(kept, 0.0)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide where the denominator is positive; 0 elsewhere, where a row has come to its least cost."""
    positive = denominator > 0
    return (numerator / denominator.where(positive, 1.0)).where(positive, 0.0)


def _sum(values: Tensor) -> Tensor:
    """Sum over the last dimension, which is kept; the cumulative sum adds in order on every CPU."""
    return values.cumsum(-1)[..., -1:]
