"""Parity: a file must agree with the model that it was made from, in logits within a tolerance, and in accuracy."""

import numpy as np

from lightweight.core.errors import bad_param
from lightweight.data.dataset import Split
from lightweight.networks.validation import ACCURACY_SLACK
from lightweight.quantization.params import QuantizeParams

MAX_EXPORT_ERROR = 1e-4  # relative, of a float32 file against its model: rounding in another order, nothing else
NAMED_IMAGES = 5  # in an error, the ones whose logits differ most


def logit_error(expected: np.ndarray, actual: np.ndarray) -> float:
    """Compute the root mean square of the difference over that of the expected logits; both are (N, classes)."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def accuracy(logits: np.ndarray, split: Split) -> float:
    """Compute the share of the images of a split that logits (N, classes) classify as labelled."""
    return float((logits.argmax(1) == split.labels.cpu().numpy()).mean())


def check_parity(
    expected: np.ndarray, actual: np.ndarray, split: Split, params: QuantizeParams, before: np.ndarray | None = None
) -> tuple[float, float]:
    """Check logits (N, classes) of a file against those expected; return relative error and drop in accuracy.

    Logits are (N, classes). `expected` are the logits of the network that the file was made from; if that network was
    trained since the pipeline made it, `before` are the earlier ones, against which accuracy is lost. Raises InputError
    beyond the limits of `params`, with the images on which the logits differ most.
    """
    error = logit_error(expected, actual)
    drop = accuracy(expected if before is None else before, split) - accuracy(actual, split)
    max_error = MAX_EXPORT_ERROR if params.method == "none" else params.max_logit_error
    subject = f"of the {params.method} file against the model on {len(split)} validation images"
    subject += f"; {_describe_worst(expected, actual)}"
    if not error <= max_error:
        raise bad_param("quantize.max_logit_error", max_error, f"exceeded: {error:.3g} {subject}")
    if drop > params.max_accuracy_drop + ACCURACY_SLACK:
        raise bad_param("quantize.max_accuracy_drop", params.max_accuracy_drop, f"exceeded: {drop:.3g} {subject}")
    return error, drop


def _describe_worst(expected: np.ndarray, actual: np.ndarray) -> str:
    """List the images whose logits differ most, with their classes by the model and by the file."""
    worst = np.linalg.norm(actual - expected, axis=1).argsort()[::-1][:NAMED_IMAGES]
    pairs = (f"{index} ({expected[index].argmax()} became {actual[index].argmax()})" for index in worst)
    return f"farthest off (index, class in model and file): {', '.join(pairs)}"
