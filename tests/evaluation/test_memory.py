"""The peak memory of a file grows with the file and with the batch, and is measured outside of this process."""

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lightweight.evaluation.memory import peak_memory

SIDE = 2048
WEIGHTS = SIDE * SIDE * 4  # bytes
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc")


def product(side: int) -> bytes:
    """Make a file that multiplies images (N, 1, 1, side) with a matrix."""
    matrix = numpy_helper.from_array(np.ones((side, side), dtype=np.float32), "weights")
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, 1, side]) for name in ("input", "logits")]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weights"], ["logits"])], "g", *[[s] for s in shapes], [matrix]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def images(number: int, side: int) -> np.ndarray:
    return np.zeros((number, 1, 1, side), dtype=np.float32)


def test_the_weights_of_a_file_are_in_its_peak_memory():
    small = peak_memory(product(8), images(1, 8), threads=1)
    large = peak_memory(product(SIDE), images(1, SIDE), threads=1)
    assert 0 < small < WEIGHTS
    assert WEIGHTS <= large - small <= 6 * WEIGHTS


def test_a_larger_batch_takes_at_least_its_images_and_outputs_more():
    one, many = (peak_memory(product(64), images(number, 64), threads=1) for number in (1, 40_000))
    assert many - one >= 40_000 * 64 * 4


def test_the_process_that_measures_imports_no_pytorch(start_python):
    code = "import sys, lightweight.evaluation.memory; print('torch' in sys.modules)"
    assert start_python(code).communicate(timeout=120)[0] == "False\n"


def test_a_file_that_does_not_open_is_an_error_and_not_a_number():
    with pytest.raises(Exception, match="returned non-zero exit status"):
        peak_memory(b"garbage", images(1, 8), threads=1)


def test_onnx_is_what_the_example_says():
    onnx.checker.check_model(onnx.load_from_string(product(8)))
