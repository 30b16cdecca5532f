"""Saliency of weights after the optimal brain surgeon: what a layer's outputs lose without a weight.

Without weight w_j, and with the other weights of its row at their best, the squared outputs change by w_j^2 divided by
[H^-1]_jj, where H is the Gram matrix of the layer's inputs (Hassibi and Stork 1993; Frantar, Singh and Alistarh 2022).
"""

import torch
from torch import Tensor, nn

from lightweight.gram.columns import ReconstructedLayer, merge_weight, split_weight
from lightweight.gram.ldl import damp, factorize
from lightweight.gram.matmul import exact_matmul
from lightweight.gram.measure import Gram, list_reconstructed, measure_grams
from lightweight.gram.solve import inverse_diagonal
from lightweight.reconstruction.repair import Batches


@torch.no_grad()
def measure_saliencies(network: nn.Module, batches: Batches) -> dict[Tensor, Tensor]:
    """Compute the saliencies by weight of a layer, each in the shape of the weight, in float64 and never negative.

    The saliencies of a layer are relative to the square root of its squared outputs, so that those of several layers
    can be compared. Expects the network in evaluation mode.
    """
    layers = list_reconstructed(network)
    grams = measure_grams(network, batches, layers)
    return {layers[name].weight: _saliency(layers[name], gram) for name, gram in grams}


def _saliency(layer: ReconstructedLayer, gram: Gram) -> Tensor:
    rows = split_weight(layer, layer.weight.cpu().double())
    costs = rows.square() / inverse_diagonal(factorize(damp(gram.matrix)))[:, None]
    energy = (exact_matmul(rows, gram.matrix) * rows).flatten().cumsum(0)[-1]
    return merge_weight(layer, costs / energy.sqrt() if energy > 0 else costs)
