"""Random samples of images, of as many of each class as there can be."""

import torch
from torch import Tensor

from lightweight.data.dataset import random_indices


def balanced_sample(labels: Tensor, number: int, seed: int) -> Tensor:
    """Draw `number` random indices of `labels` (N,), in ascending order and with classes as equal as they can be."""
    order = random_indices(len(labels), len(labels), seed)
    shuffled, rank = labels.cpu()[order], torch.empty_like(order)  # rank: how many of its class come before an image
    for label in shuffled.unique():
        members = shuffled == label
        rank[members] = torch.arange(int(members.sum()))
    return order[rank.argsort(stable=True)][:number].sort().values
