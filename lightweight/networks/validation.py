"""Loss and accuracy of a model on images that it is not trained on."""

import torch
import torch.nn.functional as F
from torch import nn

from lightweight.dataset import Dataset, Split, count_batches
from lightweight.execution.ranks import map_shared

ACCURACY_SLACK = 1e-9  # in comparisons of accuracies, which are shares of images: 0.8 - 0.79 > 0.01 in floating point


@torch.no_grad()
def validate(model: nn.Module, dataset: Dataset, split: Split, batch_size: int | None = None) -> tuple[float, float]:
    """Compute mean cross-entropy and accuracy in [0, 1] of `model` on a split; leaves it in evaluation mode.

    By default a batch holds at most 512 images, and fewer where images are larger than 64x64 pixels.
    """
    model.eval()
    batch_size = batch_size or max(1, min(512, 512 * 64**2 // dataset.input_size**2))

    def score(number: int) -> tuple[float, float]:
        images, labels = dataset.batch(split, number, batch_size)
        logits = model(images)
        loss = F.cross_entropy(logits, labels, reduction="sum").item()
        return loss, (logits.argmax(1) == labels).sum().item()

    rows = map_shared(score, count_batches(split, batch_size), 2).tolist()
    loss, correct = (sum(column) for column in zip(*rows, strict=True))  # in the order of the batches
    return loss / len(split), round(correct) / len(split)
