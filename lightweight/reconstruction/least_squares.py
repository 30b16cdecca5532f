"""Refit the weights that stay, so that a layer without its pruned weights gives nearly the outputs that it gave before.

The change e of a row of weights costs e^T H e with the Gram matrix H of the layer's inputs. Where all rows have lost
the same weights, as without a channel, the sweep of SparseGPT (Frantar and Alistarh 2023) over the pruned columns first
is the least-squares solution. Elsewhere, each row has a solution of its own, to which conjugate gradients come close
from the result of the sweep.
"""

import torch
from torch import Tensor

from lightweight.gram.ldl import damp
from lightweight.gram.sweep import sweep
from lightweight.reconstruction.descent import descend

STEPS = 30  # of conjugate gradients; each one lowers the cost of every row


def refit(weights: Tensor, kept: Tensor, matrix: Tensor) -> Tensor:
    """Return weights (G, rows, K) of float64 that are zero where not `kept` and cost least by matrices (G, K, K).

    Damping of the matrices draws the weights that stay to what they were.
    """
    swept = _sweep(weights, kept, matrix)
    shared = (kept == kept.any(-2, keepdim=True)) | ~kept.any(-1, keepdim=True)  # rows without weights do not count
    return swept if bool(shared.all()) else descend(weights, swept, kept, damp(matrix), STEPS)


def _sweep(weights: Tensor, kept: Tensor, matrix: Tensor) -> Tensor:
    """Prune column by column, those that have lost the most weights first, so that the others make up for them."""
    columns = kept.mT  # (G, K, rows)
    groups = torch.arange(len(kept))

    def choose(targets: Tensor, indices: Tensor, costs: Tensor) -> Tensor:
        return torch.where(columns[groups, indices], targets, 0.0)

    return sweep(weights, matrix, choose, (~columns).sum(-1))
