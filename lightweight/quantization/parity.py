"""A file must agree with the model that it was made from: logits within a tolerance, and accuracy."""

from typing import Protocol

import numpy as np

from lightweight.core.errors import bad_param
from lightweight.dataset import Split
from lightweight.networks.validation import ACCURACY_SLACK

EXPORT_ERROR = 1e-4  # relative, of a float32 file against its model: rounding in another order, nothing else
WORST = 5


def logit_error(expected: np.ndarray, found: np.ndarray) -> float:
    """Root mean square of the difference over that of the expected logits; both (N, classes)."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def accuracy(logits: np.ndarray, split: Split) -> float:
    return float((logits.argmax(1) == split.labels.cpu().numpy()).mean())


class Limits(Protocol):
    method: str
    max_logit_error: float
    max_accuracy_drop: float


def check_parity(
    expected: np.ndarray, found: np.ndarray, split: Split, params: Limits, before: np.ndarray | None = None
) -> tuple[float, float]:
    """Logit error of the file against the model on `split`, and the accuracy that it lost.

    It loses accuracy against the logits `before`, where the model was trained to be rounded in between. Raises
    InputError beyond the limits, with the images on which they differ most.
    """
    error = logit_error(expected, found)
    drop = accuracy(expected if before is None else before, split) - accuracy(found, split)
    limit = EXPORT_ERROR if params.method == "none" else params.max_logit_error
    where = (
        f"of the {params.method} file against the model on {len(split)} validation images; {_worst(expected, found)}"
    )
    if not error <= limit:
        raise bad_param("quantize.max_logit_error", limit, f"exceeded: {error:.3g} {where}")
    if drop > params.max_accuracy_drop + ACCURACY_SLACK:
        raise bad_param("quantize.max_accuracy_drop", params.max_accuracy_drop, f"exceeded: {drop:.3g} {where}")
    return error, drop


def _worst(expected: np.ndarray, found: np.ndarray) -> str:
    """The images on which logits differ most, with what the model and the file take them for."""
    far = np.linalg.norm(found - expected, axis=1).argsort()[::-1][:WORST]
    pairs = (f"{index} ({expected[index].argmax()} became {found[index].argmax()})" for index in far)
    return f"farthest off (index, class in model and file): {', '.join(pairs)}"
