"""Tensors come back as they were written, by both ways of coding integers, in about the bits of their entropy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lightweight.codec.numbers import FieldCoder
from lightweight.codec.range_coder import Decoder, Encoder
from lightweight.codec.tensors import CodedTensor, TensorCoder

WAYS = pytest.mark.parametrize("by_symbol", [True, False], ids=["by symbol", "by row"])


def write(tensors, by_symbol):
    encoder = Encoder()
    coder = TensorCoder(FieldCoder(encoder), by_symbol)
    for tensor in tensors:
        coder.code(tensor)
    return encoder.content()


def read(content, number, by_symbol):
    coder = TensorCoder(FieldCoder(Decoder(content)), by_symbol)
    return [coder.code() for _ in range(number)]


def integers(shape, deviation, seed=0):
    return np.rint(np.random.default_rng(seed).laplace(0, deviation, shape)).astype(np.int32)


def entropy_bytes(values):
    counts = np.unique(values, return_counts=True)[1]
    return -(counts * np.log2(counts / counts.sum())).sum() / 8


@WAYS
@settings(deadline=None, max_examples=40)
@given(data=st.data(), shape=array_shapes(min_dims=0, max_dims=5, max_side=6))
def test_integers_and_scales_come_back(by_symbol, data, shape):
    values = data.draw(arrays(np.int32, shape, elements=st.integers(-40, 40)))
    axis = data.draw(st.integers(0, max(0, len(shape) - 1)))
    number = data.draw(st.sampled_from([1, shape[axis] if shape else 1]))
    codes = np.array(data.draw(st.lists(st.integers(-3000, 3000), min_size=number, max_size=number)))
    (found,) = read(write([CodedTensor(values, codes, axis)], by_symbol), 1, by_symbol)
    assert found.integers.dtype == np.int32
    assert np.array_equal(found.integers, values)
    assert np.array_equal(found.values(), CodedTensor(values, codes, axis).values())


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "bool", "float16", "uint8", "int8", "float64"])
def test_exact_values_come_back(dtype):
    array = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    (found,) = read(write([array], True), 1, True)
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def test_the_value_is_integer_times_scale_along_the_axis():
    tensor = CodedTensor(np.array([[1, 2], [3, -4]], np.int32), np.array([0, 32]), axis=1)
    assert tensor.values().tolist() == [[1.0, 4.0], [3.0, -8.0]]


@WAYS
def test_a_tensor_without_structure_takes_its_entropy(by_symbol):
    values = integers((64, 32, 3, 3), 0.6)
    content = write([CodedTensor(values, np.array([0]))], by_symbol)
    assert 0.98 < len(content) / entropy_bytes(values) < 1.04


@WAYS
def test_rows_and_columns_of_different_sizes_take_less_than_their_entropy(by_symbol):
    source = np.random.default_rng(1)
    rows, columns = source.uniform(0.05, 1, (64, 1, 1, 1)), source.uniform(0.05, 1, (1, 64, 1, 1))
    values = np.rint(source.laplace(0, 1, (64, 64, 3, 3)) * rows * columns * 2).astype(np.int32)
    content = write([CodedTensor(values, np.array([0]))], by_symbol)
    assert len(content) < 0.92 * entropy_bytes(values)


@WAYS
def test_a_tensor_of_zeros_takes_next_to_nothing(by_symbol):
    assert len(write([CodedTensor(np.zeros((64, 64, 3, 3), np.int32), np.array([0]))], by_symbol)) < 60


def test_equal_tensors_give_equal_bytes():
    tensors = [CodedTensor(integers((8, 8, 3, 3), 1, seed), np.arange(8)) for seed in range(3)]
    assert write(tensors, False) == write(tensors, False)


def test_scales_cost_by_their_steps_and_not_by_their_size():
    values = np.zeros((500, 2), np.int32)
    coarse = 8 * np.random.default_rng(0).integers(0, 4, 500)
    content = write([CodedTensor(values, coarse - 1000)], False)
    assert len(content) < 500 * 2 / 8 + 60  # four scales: two bits each
