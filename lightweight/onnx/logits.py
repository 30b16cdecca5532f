"""Logits of a split of images: by PyTorch from a network, by ONNX Runtime from a session."""

from collections.abc import Callable

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnxruntime
import torch
from torch import nn

from lightweight.core.errors import InputError
from lightweight.data.dataset import Dataset, Split, count_batches, split_batches
from lightweight.execution.ranks import largest, merge_rows, share
from lightweight.onnx.session import compute_logits


@torch.no_grad()
def torch_logits(model: nn.Module, dataset: Dataset, split: Split, batch_size: int) -> np.ndarray:
    """Compute the logits of `model` in evaluation mode for a split: float32 (N, classes)."""
    model.eval()
    return _map_batches(lambda images: model(dataset.normalize(images)).cpu(), split, batch_size)


def onnx_logits(session: onnxruntime.InferenceSession, split: Split, batch_size: int) -> np.ndarray:
    """Compute the logits of a file for the raw pixels of a split: float32 (N, classes).

    Raises InputError when the file takes images of another shape, or fails at some.
    """
    expected, actual = tuple(session.get_inputs()[0].shape[1:]), tuple(split.images.shape[1:])
    if expected != actual:
        raise InputError(f"The ONNX file takes images of shape {expected}, those of the data set have {actual}")

    def predict(images: torch.Tensor) -> torch.Tensor:
        try:
            return torch.from_numpy(compute_logits(session, pixels(images)))
        except ValueError as error:
            raise InputError(f"The ONNX file cannot predict images of the data set: {error}") from None

    return _map_batches(predict, split, batch_size)


def _map_batches(function: Callable[[torch.Tensor], torch.Tensor], split: Split, batch_size: int) -> np.ndarray:
    """Compute rows from the images uint8 of every batch, shared out over the processes: (N, columns)."""
    numbers = share(count_batches(split, batch_size))
    batches = split.read(split_batches(split, batch_size, numbers))
    parts = {number: function(images) for number, (images, _) in zip(numbers, batches, strict=True)}
    rows = torch.zeros(len(split), largest(max((part.shape[1] for part in parts.values()), default=0)))
    for number, part in parts.items():
        rows[number * batch_size :][: len(part)] = part
    return merge_rows(rows).numpy()


def pixels(images: torch.Tensor) -> np.ndarray:
    """Convert images uint8 (N, C, H, W) to what an exported file takes: float32 from 0 to 255."""
    return images.cpu().numpy().astype(np.float32)
