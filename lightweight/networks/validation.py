"""Loss and accuracy of a model on images that it is not trained on."""

import torch
import torch.nn.functional as F
from torch import nn

from lightweight.data.dataset import Dataset, Split, count_batches
from lightweight.execution.ranks import map_shared, share

ACCURACY_SLACK = 1e-9  # in comparisons of accuracies, which are shares of images: 0.8 - 0.79 > 0.01 in floating point


def limit_batch(images: int, dataset: Dataset) -> int:
    """Return a number of images that takes no more memory than 512 images of 64x64 pixels, at most `images`."""
    return max(1, min(images, 512 * 64**2 // dataset.input_size**2))


@torch.no_grad()
def validate(model: nn.Module, dataset: Dataset, split: Split, batch_size: int | None = None) -> tuple[float, float]:
    """Compute mean cross-entropy and accuracy in [0, 1] of `model` on a split; leaves it in evaluation mode.

    By default a batch is as large as `limit_batch` allows.
    """
    model.eval()
    batch_size = batch_size or limit_batch(512, dataset)

    total = count_batches(split, batch_size)
    batches = dataset.batches(split, batch_size, share(total))

    def score(_: int) -> tuple[float, float]:
        images, labels = next(batches)
        logits = model(images)
        loss = F.cross_entropy(logits, labels, reduction="sum").item()
        return loss, (logits.argmax(1) == labels).sum().item()

    rows = map_shared(score, total, 2).tolist()
    loss, correct = (sum(column) for column in zip(*rows, strict=True))  # in the order of the batches
    return loss / len(split), round(correct) / len(split)
