"""How sure a model is of its classes, and whether it is right to be: from logits, without a fitted temperature."""

import numpy as np
from scipy.special import log_softmax

BINS = 15  # of equal width, as in Guo et al. 2017


def confidences(logits: np.ndarray) -> np.ndarray:
    """Compute the probability of the most likely class of each image, from logits (N, classes): float64 (N,)."""
    return np.exp(log_softmax(logits.astype(np.float64), axis=1).max(axis=1))


def label_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the negative log-likelihood of the label of each image, in nats, from logits (N, classes): (N,)."""
    return -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]


def expected_calibration_error(confident: np.ndarray, right: np.ndarray) -> float:
    """Compute the ECE (Naeini et al. 2015) over 15 bins of equal width, from confidences and whether they were right.

    It is the mean over the images of how far accuracy and mean confidence of their bin lie apart. A bin holds what is
    above its lower bound and not above its upper one.
    """
    places = np.clip(np.ceil(confident * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(places, weights=confident - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confident))


def worst_class(right: np.ndarray, labels: np.ndarray) -> tuple[int, float]:
    """Find the class (its number) whose images are least often right, the first of equals, and its accuracy."""
    counts = np.bincount(labels)
    shares = np.bincount(labels, weights=right) / np.where(counts, counts, 1)
    shares[counts == 0] = np.inf  # a class without images has no accuracy
    number = int(shares.argmin())
    return number, float(shares[number])
