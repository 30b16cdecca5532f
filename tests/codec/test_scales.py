"""Scales lie on a grid of exact float32 numbers."""

import numpy as np
import pytest

from lightweight.codec.scales import LARGEST, LEAST, STEPS, nearest_codes, scales_of


def test_an_octave_doubles_exactly():
    codes = np.arange(LEAST, LARGEST - STEPS)
    assert np.array_equal(scales_of(codes + STEPS), 2 * scales_of(codes))


def test_steps_within_an_octave_are_equal_ratios():
    scales = scales_of(np.arange(STEPS + 1)).astype(np.float64)
    assert scales[0] == 1
    assert scales[1:] / scales[:-1] == pytest.approx(2 ** (1 / STEPS), rel=1e-6)


def test_scales_are_bits_of_integers_and_no_function_of_the_machine():
    assert scales_of(np.array([1, 16, 31])).view(np.uint32).tolist() == [0x3F82CD87, 0x3FB504F3, 0x3FFA83B3]


@pytest.mark.parametrize("stride", [1, 2, 8])
def test_the_nearest_code_is_half_a_step_away_at_most(stride):
    scales = np.exp(np.linspace(-20, 20, 999))
    codes = nearest_codes(scales, stride)
    assert not (codes % stride).any()
    assert np.abs(np.log2(scales_of(codes) / scales)).max() <= stride / STEPS / 2 + 1e-6


def test_codes_of_scales_are_their_codes():
    codes = np.arange(LEAST, LARGEST)[::17]
    assert np.array_equal(nearest_codes(scales_of(codes)[np.abs(codes) < 3000], 1), codes[np.abs(codes) < 3000])
