"""Sizes are those of real streams; the estimate is a code that holds every value, and never longer than the tensor."""

import zlib

import numpy as np
import pytest
import zstandard

from lightweight.evaluation.sizes import coded_bits, measure_sizes
from lightweight.onnx.weights import StoredTensor

RANDOM = np.random.default_rng(0)


def stored(values: np.ndarray, bits: int = 32, zero: float = 0) -> StoredTensor:
    return StoredTensor(values, zero, bits)


def test_four_kinds_of_bytes_are_those_of_the_file_and_of_its_weights():
    content = RANDOM.integers(0, 4, 5000, dtype=np.uint8).tobytes()
    weights = [stored(RANDOM.integers(-7, 8, 999).astype(np.int8), 4), stored(RANDOM.normal(size=10))]
    sizes = measure_sizes(content, weights)
    assert list(sizes) == ["size_bytes", "compressed_bytes", "zstd_bytes", "entropy_bytes", "ideal_bytes"]
    assert sizes["size_bytes"] == 5000
    assert sizes["zstd_bytes"] < 2000
    stream = zstandard.ZstdCompressor(level=9).compress(content)
    assert sizes["zstd_bytes"] == len(stream)
    assert zstandard.ZstdDecompressor().decompress(stream) == content
    assert sizes["ideal_bytes"] == -(-(999 * 4 + 10 * 32) // 8), "bits are rounded up to bytes once"
    assert sizes["entropy_bytes"] <= sizes["ideal_bytes"]


@pytest.mark.parametrize("values", [RANDOM.normal(size=200), np.arange(64), np.zeros(5), np.zeros(0)])
def test_no_code_takes_more_than_the_tensor(values):
    assert 0 <= coded_bits(stored(values)) <= 32 * values.size


def test_values_that_all_differ_take_their_full_bits():
    values = RANDOM.integers(0, 2**32, 1000, dtype=np.uint32)
    assert coded_bits(stored(values)) == 32 * 1000


def test_floats_of_one_magnitude_save_on_their_exponents_and_zlib_is_no_shorter():
    values = RANDOM.uniform(1, 2, 20_000).astype(np.float32)
    bits = coded_bits(stored(values))
    assert 23 * 20_000 <= bits <= 25 * 20_000, "of 32 bits, the 9 of sign and exponent are all the same"
    assert bits / 8 <= len(zlib.compress(values.tobytes(), 9))


def test_half_of_the_values_zero_costs_one_bit_each_and_the_others_theirs():
    values = np.concatenate([np.zeros(500), RANDOM.integers(1, 2**32, 500)]).astype(np.uint32)
    assert coded_bits(stored(values)) == pytest.approx(1000 * 1 + 500 * 32)


def test_few_values_cost_their_entropy_and_a_table():
    values = np.repeat([-1, 2, 3, 4], [500, 250, 125, 125]).astype(np.int8)
    assert coded_bits(stored(values, 8)) == pytest.approx(1.75 * 1000 + 4 * 8)


def test_zero_is_what_stands_for_zero():
    values = np.concatenate([np.full(900, 128), RANDOM.permutation(128)[:100]]).astype(np.uint8)
    entropy = -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))
    assert coded_bits(stored(values, 8, zero=128)) == pytest.approx(min(1000 * entropy + 100 * 8, 8000), rel=0.01)


def test_where_no_code_helps_values_stay_as_they_are():
    assert coded_bits(stored(np.tile(np.arange(-8, 8, dtype=np.int8), 4), 4)) == 64 * 4
