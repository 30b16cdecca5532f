"""Neighbours are those of the runtime's kernels, no sum of theirs is cut, and rounding errs by the least square."""

from itertools import combinations, product

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lightweight.core.machine import int8_saturates
from lightweight.rounding.saturation import all_neighbours, limit_sums, neighbours, round_rows, saturates

LAYERS = {  # kind, shape of the weight without its outputs, groups
    "3x3": ("Conv", (4, 3, 3), 1),
    "3x3 in groups": ("Conv", (4, 3, 3), 2),
    "3x3 of colours": ("Conv", (3, 3, 3), 1),
    "3x3 of colours in groups": ("Conv", (3, 3, 3), 2),
    "3x3 of grey": ("Conv", (1, 3, 3), 1),
    "3x1": ("Conv", (5, 3, 1), 1),
    "1x1": ("Conv", (9, 1, 1), 1),
    "linear": ("MatMul", (9,), 1),
    "linear, even": ("MatMul", (8,), 1),
}
LONG = {"3x3 of many": ("Conv", (64, 3, 3), 1), "3x3 of odd": ("Conv", (67, 3, 3), 1), "long": ("MatMul", (1001,), 1)}
rng = np.random.default_rng(0)


def shape_of(kind: str, inputs: tuple[int, ...], outputs: int) -> tuple[int, ...]:
    return (*inputs, outputs) if kind == "MatMul" else (outputs, *inputs)


def pairs(partner: np.ndarray) -> set[tuple[int, int]]:
    return {(column, int(other)) for column, other in enumerate(partner) if other > column}


def step_of(rows: np.ndarray) -> float:
    """Return the step of outputs uint8 for so many columns, a power of two."""
    return float(2 ** np.ceil(np.log2(300 * rows.shape[1] ** 0.5)))


def multiply(kind: str, rows: np.ndarray, inputs: tuple[int, ...], groups: int, image: np.ndarray) -> np.ndarray:
    """Multiply an image uint8 (columns,) by integers (outputs, columns) in ONNX Runtime: (outputs,)."""
    tensors = {"one": np.float32(1), "zero": np.uint8(0), "zeros": np.zeros(len(rows), np.int8)}
    tensors |= {"ones": np.ones(len(rows), np.float32), "step": np.float32(step_of(rows))}
    if kind == "MatMul":
        tensors["weight"], shape = np.ascontiguousarray(rows.T), [1, rows.shape[1]]
        nodes = [helper.make_node("MatMulInteger", ["image", "weight", "zero", "zeros"], ["sums"])]
        kind_of_sums = TensorProto.INT32
    else:
        tensors["weight"], shape = rows.reshape(-1, *inputs), [1, groups * inputs[0], *inputs[1:]]
        names = ["image", "one", "zero", "weight", "ones", "zeros", "step", "zero"]
        nodes = [helper.make_node("QLinearConv", names, ["sums"], group=groups)]
        kind_of_sums = TensorProto.UINT8
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("sums", kind_of_sums, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": np.resize(image, shape)})[0].astype(int).ravel()


def exact(kind: str, rows: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Compute what `multiply` must return."""
    sums = rows.astype(int) @ image.astype(int)
    return sums if kind == "MatMul" else np.clip(np.rint(sums / step_of(rows)), 0, 255).astype(int)


@pytest.mark.skipif(not int8_saturates(), reason="no sum is cut on this CPU")
@pytest.mark.parametrize(("kind", "inputs", "groups"), LAYERS.values(), ids=LAYERS)
def test_neighbours_are_those_whose_sum_the_runtime_cuts(kind, inputs, groups):
    columns = int(np.prod(inputs))
    every = list(combinations(range(columns), 2))
    rows = np.zeros((groups * len(every), columns), np.int8)
    for number, pair in enumerate(every * groups):
        rows[number, list(pair)] = 127
    image = np.full(columns, 255, np.uint8)
    cut = multiply(kind, rows, inputs, groups, image) != exact(kind, rows, image)
    expected = pairs(neighbours(kind, shape_of(kind, inputs, len(rows)), groups))
    for group in cut.reshape(groups, -1):
        assert {pair for pair, is_cut in zip(every, group, strict=True) if is_cut} == expected


def test_depthwise_convolutions_have_no_neighbours_and_are_not_cut():
    rows = np.full((8, 9), 127, np.int8)
    assert (neighbours("Conv", (8, 1, 3, 3), groups=8) == -1).all()
    image = np.full(9, 255, np.uint8)
    assert (multiply("Conv", rows // 8, (1, 3, 3), 8, image) == exact("Conv", rows // 8, image)).all()
    pair = rows * (np.arange(9) < 2)
    assert (multiply("Conv", pair, (1, 3, 3), 8, image) == exact("Conv", pair, image)).all()
    assert (neighbours("Conv", (16, 1, 3, 3), groups=8) >= 0).sum() == 8  # two outputs of each channel: not depthwise


@pytest.mark.parametrize(("kind", "inputs", "groups"), (LAYERS | LONG).values(), ids=LAYERS | LONG)
def test_the_runtime_computes_the_exact_sums_of_what_was_limited_and_cuts_others(kind, inputs, groups):
    columns = int(np.prod(inputs))
    rows = rng.integers(-127, 128, (8 * groups, columns)).astype(np.int8)
    limited = rows
    for partner in all_neighbours(kind, shape_of(kind, inputs, len(rows)), groups):
        limited = limit_sums(limited, partner).astype(np.int8)
    cut = False
    for _ in range(20):
        image = rng.choice(np.array([0, 255], np.uint8), columns, p=[0.2, 0.8])
        assert (multiply(kind, limited, inputs, groups, image) == exact(kind, limited, image)).all()
        cut |= bool((multiply(kind, rows, inputs, groups, image) != exact(kind, rows, image)).any())
    assert cut == int8_saturates()


def test_partners_are_mutual_and_an_odd_last_column_has_none():
    assert neighbours("MatMul", (5, 2)).tolist() == [1, 0, 3, 2, -1]
    assert neighbours("Gemm", (2, 5)).tolist() == [1, 0, 3, 2, -1]
    assert neighbours("Conv", (7, 3, 1, 2)).tolist() == [2, 4, 0, 5, 1, 3]  # (0, 1) (2, 0) (1, 2) of both positions
    assert neighbours("Conv", (7, 3, 1, 2), padded=True).tolist() == [2, 3, 0, 1, -1, -1]
    assert len(all_neighbours("Conv", (7, 3, 1, 2))) == 2
    assert len(all_neighbours("Conv", (7, 4, 1, 2))) == len(all_neighbours("Conv", (8, 3, 1, 2), groups=2)) == 1


@pytest.mark.parametrize("importance", [None, np.array([1.0, 7.0])])
@pytest.mark.parametrize("rounded", [False, True])
def test_sums_are_limited_by_the_least_squared_error(importance, rounded):
    weights = np.ones(2) if importance is None else importance
    options = np.array([pair for pair in product(range(-127, 128), repeat=2) if abs(sum(pair)) <= 128])
    given = np.array(
        [(127, 127), (127, 2), (2, 127), (-127, -64), (-65, -64), (100, 29), (127, -127), (64, 64), (90, 71)]
    )
    exact_rows = given + rng.uniform(-0.5, 0.5, given.shape) if rounded else given
    limited = limit_sums(given, np.array([1, 0]), importance, exact_rows if rounded else None)
    for before, after, target in zip(given, limited, exact_rows, strict=True):
        errors = np.square(options - target) @ weights
        assert abs(sum(after)) <= 128
        if abs(sum(before)) <= 128:
            assert (after == before).all()
        else:
            assert np.square(after - target) @ weights == pytest.approx(errors.min())


def test_after_limiting_no_sum_saturates_and_pairs_below_the_limit_stay():
    rows = rng.integers(-127, 128, (50, 27)).astype(np.int8)
    orders = all_neighbours("Conv", (50, 3, 3, 3))
    assert all(saturates(rows, order).any() for order in orders)
    limited = rows
    for order in orders:
        limited = limit_sums(limited, order)
    assert not any(saturates(limited, order).any() for order in orders)
    assert (np.abs(limited) <= np.abs(rows)).all()
    fine = [(np.abs(rows.astype(int) + rows[:, order]) <= 128) | (order < 0) for order in orders]
    assert (limited == rows)[fine[0] & fine[1]].all()


def round_plainly(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scales = (np.abs(weights).max(axis=1) / 127).astype(np.float32)
    return np.rint(weights / scales[:, None]).astype(np.int8), scales


def test_rows_are_rounded_anew_only_where_a_sum_saturates_and_closer_than_by_7_bits():
    weights = rng.normal(size=(40, 1024)).astype(np.float32)
    weights[:10] *= np.where(np.arange(1024) % 2, 0.01, 1)  # one of two neighbours is small
    integers, scales = round_plainly(weights)
    orders = all_neighbours("Gemm", weights.shape)
    given = integers.copy(), scales.copy()
    rounded, steps, moved = round_rows(weights, integers, scales, orders)
    touched = saturates(integers, orders[0])
    assert not touched[:10].all()
    assert touched[10:].sum() > 20
    assert (rounded[~touched] == integers[~touched]).all()
    assert (steps[~touched] == scales[~touched]).all()
    assert not saturates(rounded, orders[0]).any()
    assert rounded.dtype == integers.dtype
    assert steps.dtype == scales.dtype
    assert (integers == given[0]).all()
    assert (scales == given[1]).all()
    assert 0 < moved < 0.02 * weights[touched].size
    error = np.square(rounded * steps[:, None] - weights)[touched].sum()
    seven = np.abs(weights).max(axis=1, keepdims=True) / 63
    assert error < 0.6 * np.square(np.rint(weights / seven) * seven - weights)[touched].sum()
    only_lowered = limit_sums(integers, orders[0]) * scales[:, None]
    assert error < 0.2 * np.square(only_lowered - weights)[touched].sum()


def test_the_rounding_of_a_row_does_not_depend_on_how_many_are_rounded_at_a_time(monkeypatch):
    weights = rng.normal(size=(30, 16)).astype(np.float32)
    orders = all_neighbours("Gemm", weights.shape)
    whole = round_rows(weights, *round_plainly(weights), orders)
    monkeypatch.setattr("lightweight.rounding.saturation.VALUES_AT_A_TIME", 16)
    parts = round_rows(weights, *round_plainly(weights), orders)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
