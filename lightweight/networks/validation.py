"""How well a model does on images that it is not trained on."""

import torch
import torch.nn.functional as F
from torch import nn

from lightweight.dataset import Dataset, Split

SLACK = 1e-9  # of accuracies, which are shares of images: 0.8 - 0.79 is more than 0.01 in floating point


@torch.no_grad()
def validate(model: nn.Module, dataset: Dataset, split: Split, batch_size: int | None = None) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of `model` in evaluation mode; by default at most 512 images of 64x64 at once."""
    model.eval()
    batch_size = batch_size or max(1, min(512, 512 * 64**2 // dataset.input_size**2))
    loss, correct = 0.0, 0
    for images, labels in dataset.batches(split, batch_size):
        logits = model(images)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()
    return loss / len(split), correct / len(split)
