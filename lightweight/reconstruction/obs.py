"""Saliency of weights after the optimal brain surgeon: what a layer's outputs lose without a weight.

Without weight w_j, and with the other weights of its row at their best, the squared outputs change by w_j^2 divided by
[H^-1]_jj, where H is the Gram matrix of the layer's inputs (Hassibi and Stork 1993). Whatever goes changes what the
others are worth. So a layer is pruned in rounds, in which the weights that stay make up for those that go, and the
saliency of a weight is the one that it had when it went (Frantar, Singh and Alistarh 2022, with rounds in the place of
single weights).
"""

import torch
from torch import Tensor, nn

from lightweight.gram.columns import ReconstructedLayer, merge_weight, split_weight
from lightweight.gram.ldl import damp, factorize
from lightweight.gram.matmul import exact_matmul
from lightweight.gram.measure import Gram, list_reconstructed, measure_grams
from lightweight.gram.solve import inverse_diagonal
from lightweight.reconstruction.descent import descend
from lightweight.reconstruction.repair import Batches

ROUNDS, SHARE = 10, 0.2  # of the weights that are left, pruned in each round: 11 % of all are left at last
STEPS = 5  # of conjugate gradients in each round


@torch.no_grad()
def measure_saliencies(network: nn.Module, batches: Batches) -> dict[Tensor, Tensor]:
    """Compute the saliencies by weight of a layer, each in the shape of the weight, in float64 and never negative.

    The saliencies of a layer are relative to the square root of its squared outputs, so that those of several layers
    can be compared. Expects the network in evaluation mode.
    """
    layers = list_reconstructed(network)
    grams = measure_grams(network, batches, layers)
    return {layers[name].weight: _layer_saliencies(layers[name], gram) for name, gram in grams}


def _layer_saliencies(layer: ReconstructedLayer, gram: Gram) -> Tensor:
    rows = split_weight(layer, layer.weight.cpu().double())
    energy = (exact_matmul(rows, gram.matrix) * rows).flatten().cumsum(0)[-1]
    saliencies = rank_in_rounds(rows, gram.matrix)
    return merge_weight(layer, saliencies / energy.sqrt() if energy > 0 else saliencies)


def rank_in_rounds(weights: Tensor, matrix: Tensor) -> Tensor:
    """Compute what each of the weights (G, rows, K) costs when its round comes, by Gram matrices (G, K, K).

    What goes in a later round costs no less than what went before.
    """
    matrix = damp(matrix)
    inverse = inverse_diagonal(factorize(matrix))[:, None]
    current, kept = weights, torch.ones_like(weights, dtype=torch.bool)
    costs = weights.square() / inverse
    for number in range(1, ROUNDS + 1):
        gone = max(1, round((1 - (1 - SHARE) ** number) * kept.numel()))
        order = costs.masked_fill(~kept, -1).flatten().argsort(stable=True)[:gone]
        least = costs.flatten()[order[-1]]
        kept = kept.flatten().index_fill(0, order, False).view(kept.shape)
        current = descend(weights, current.where(kept, 0.0), kept, matrix, STEPS)
        costs = (current.square() / inverse).clamp(min=least).where(kept, costs)
    return costs
