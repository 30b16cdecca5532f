"""Statistics of paired comparisons: an interval of a proportion, a paired test of accuracies, an interval of a median.

All are exact or of good coverage for small samples, and all come from scipy.stats.
"""

from itertools import count

import numpy as np
from scipy.stats import binomtest, quantile_test

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05  # a p-value below this is taken for a difference


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Compute the 95 % Wilson score interval of a proportion (Wilson 1927); both ends lie in [0, 1]."""
    low, high = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


def mcnemar_p(gained: int, lost: int) -> float:
    """Compute the two-sided p-value of the exact McNemar test (McNemar 1947) from the discordant pairs.

    `gained` counts the images that only the second of two classifiers gets right, `lost` those that only the first
    does. Where both get the same images right, p is 1.
    """
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def smallest_detectable_loss(images: int) -> float:
    """Compute the smallest loss of accuracy that the exact McNemar test can tell from chance, as a share of the images.

    That is the loss of the fewest images, with none gained, for which p < 0.05: six, whatever the number of images.
    The share is above 1 for fewer than six images, among which no loss can be told from chance.
    """
    return next(lost for lost in count(1) if mcnemar_p(0, lost) < SIGNIFICANCE) / images


def median_interval(samples: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Compute the interval of the median of samples (n,) by order statistics (sign test), of 95 % by default.

    Both ends are samples. Needs at least six of them for 95 %; with too few, both ends are NaN.
    """
    interval = quantile_test(samples, p=0.5).confidence_interval(confidence)
    return float(interval.low), float(interval.high)
