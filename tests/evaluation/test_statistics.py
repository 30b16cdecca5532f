"""Intervals and p-values are those of the published formulas, also at the ends of their ranges."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from lightweight.evaluation.statistics import mcnemar_p, median_interval, smallest_detectable_loss, wilson_interval


@pytest.mark.parametrize(("right", "images"), [(0, 10), (1, 10), (7, 10), (50, 60), (60, 60), (9_900, 10_000)])
def test_the_interval_of_a_proportion_is_that_of_wilson(right, images):
    z, share = 1.959963984540054, right / images
    middle = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    assert wilson_interval(right, images) == pytest.approx((middle - half, middle + half), abs=1e-9)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 5, 2 * (1 + 6) / 2**6),
        (5, 1, 2 * (1 + 6) / 2**6),
        (3, 3, 1.0),
        (0, 6, 2 / 2**6),
        (2, 8, 2 * (1 + 10 + 45) / 2**10),
    ],
)
def test_the_p_value_is_that_of_the_exact_mcnemar_test(gained, lost, p):
    assert mcnemar_p(gained, lost) == pytest.approx(p)


@pytest.mark.parametrize("images", [1, 6, 450, 10_000])
def test_no_loss_of_fewer_images_than_the_smallest_detectable_one_is_ever_significant(images):
    smallest = smallest_detectable_loss(images)
    lost = round(smallest * images)
    assert smallest == lost / images == 6 / images
    assert mcnemar_p(0, lost) < 0.05
    assert all(mcnemar_p(gained, gained + net) >= 0.05 for net in range(lost) for gained in range(100))


@pytest.mark.parametrize("rounds", range(6, 201))
def test_the_interval_of_a_median_is_that_of_the_sign_test(rounds):
    """By symmetric ranks, of which the k-th lowest is the last that leaves less than 2.5 % of the chance below it."""
    low, high = median_interval(np.random.default_rng(0).permutation(np.arange(1.0, rounds + 1)))
    assert low + high == rounds + 1
    assert binom.cdf(low - 1, rounds, 0.5) <= 0.025 < binom.cdf(low, rounds, 0.5)


def test_the_median_of_five_samples_has_no_interval():
    assert all(map(math.isnan, median_interval(np.arange(5.0))))
