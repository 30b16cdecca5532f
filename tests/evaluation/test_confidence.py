"""Confidences are softmax probabilities, losses those of PyTorch, and the calibration error is that of the paper."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightweight.evaluation.confidence import BINS, confidences, expected_calibration_error, label_losses, worst_class

LOGITS = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32) * 3
LABELS = np.random.default_rng(1).integers(0, 7, 50)


def test_confidences_and_losses_are_those_of_pytorch():
    logits, labels = torch.from_numpy(LOGITS).double(), torch.from_numpy(LABELS)
    assert confidences(LOGITS) == pytest.approx(logits.softmax(1).max(1).values.numpy(), rel=1e-12)
    assert label_losses(LOGITS, LABELS) == pytest.approx(F.cross_entropy(logits, labels, reduction="none").numpy())


def test_logits_that_overflow_as_exponents_have_probabilities():
    logits = np.array([[5000.0, 0.0], [-5000.0, 5000.0]], dtype=np.float32)
    assert confidences(logits).tolist() == [1, 1]
    assert label_losses(logits, np.array([1, 1])).tolist() == [5000, 0]


def test_the_calibration_error_is_the_weighted_gap_of_accuracy_and_confidence_by_bin():
    confident = np.random.default_rng(2).uniform(0.01, 1, 400)
    right = np.random.default_rng(3).uniform(size=400) < confident**2
    edges = np.linspace(0, 1, BINS + 1)
    expected = 0.0
    for low, high in pairwise(edges):
        inside = (confident > low) & (confident <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confident[inside].mean())
    assert expected_calibration_error(confident, right) == pytest.approx(expected)


def test_a_model_that_is_as_sure_as_it_is_right_has_no_calibration_error():
    right = np.array([True] * 8 + [False] * 2)
    assert expected_calibration_error(np.full(10, 0.8), right) == pytest.approx(0)
    assert expected_calibration_error(np.full(10, 1.0), right) == pytest.approx(0.2)


def test_gaps_of_different_bins_do_not_cancel_and_those_of_one_bin_do():
    assert expected_calibration_error(np.array([0.95, 0.35]), np.array([False, True])) == pytest.approx(0.8)
    assert expected_calibration_error(np.array([0.51, 0.51]), np.array([False, True])) == pytest.approx(0.01)


def test_the_worst_class_is_the_first_of_the_lowest_accuracy_and_has_images():
    labels = np.array([0, 0, 1, 1, 3, 3, 3])
    right = np.array([True, True, True, False, True, False, True])
    assert worst_class(right, labels) == (1, 0.5)
    assert worst_class(np.ones(7, dtype=bool), labels) == (0, 1.0)


def test_a_bin_holds_its_upper_bound_and_not_its_lower_one():
    assert 0.2 * BINS == 3
    below, above = (
        expected_calibration_error(np.array([0.2, other]), np.array([True, False])) for other in (0.15, 0.25)
    )
    assert below == pytest.approx(abs(0.5 - 0.175)), "one bin"
    assert above == pytest.approx((0.8 + 0.25) / 2), "two bins"
