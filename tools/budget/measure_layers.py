"""Measure what each layer of the network in params.yaml takes, by width: the table that `make budget` reads.

    python -m tools.budget.measure_layers

Each layer is timed alone in ONNX Runtime, for one image, by `threads` of params.yaml, in float32 and in 8-bit integers,
at quarters of its widths. Equal layers are timed once.

Writes  budget/layer_times.csv
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lightweight.core.files import write_csv
from lightweight.core.yaml import read_yaml
from lightweight.evaluation.timing import Effort, seconds_of_fastest
from lightweight.execution.process import run_stage
from lightweight.onnx.graph import shapes_for_one_image
from lightweight.onnx.session import make_inference_session
from lightweight.onnx.weights import find_weights, layer_name, read_tensors
from tools.budget.candidate import apply
from tools.budget.layer_times import TABLE, Widths, widths
from tools.budget.trial import OPTIMIZED
from tools.fingerprints import take_fingerprints
from tools.recipe.experiment import PARAMS, Experiment

QUARTERS = (1, 2, 3, 4)  # of a width
PASSES = 5  # over all layers, in changing order; the fastest counts, for what is slower was interrupted
COLUMNS = ("layer", "int8", "reads", "writes", "ms")
AS_IT_IS = {"swa.start": None, "prune.amount": 0, "bn_update.num_images": 0, "quantize.method": "none"}


@dataclass(frozen=True)
class Kernel:
    """Describe a computation to be timed: operator, shapes of weight and input, attributes, precision."""

    operator: str
    weight: tuple[int, ...]
    inputs: tuple[int, ...]
    attributes: tuple[tuple[str, Any], ...]
    int8: bool


def main() -> None:
    params = read_yaml(PARAMS)
    experiment = Experiment("budget-layers")
    experiment.run(apply(params, AS_IT_IS), take_fingerprints(PARAMS, PARAMS.parent), "quantize")
    with experiment.artifacts((OPTIMIZED,)) as folder:
        model = onnx.load(folder / OPTIMIZED)
    cells = {(name, kernel.int8, pair): kernel for name, pair, kernel in list_kernels(model)}
    times = time_kernels(sorted(set(cells.values()), key=repr), params["threads"])
    rows = [(*key[:2], *key[2], f"{times[kernel]:.5f}") for key, kernel in cells.items()]
    write_csv(TABLE, COLUMNS, [dict(zip(COLUMNS, row, strict=True)) for row in rows])
    print(f"latency table  {len(times)} computations of {len({key[0] for key in cells})} layers  -> {TABLE}")


def list_kernels(model: onnx.ModelProto) -> Iterator[tuple[str, Widths, Kernel]]:
    """List what is to be timed of a float32 file: the layer's name, its widths, and the computation at these widths."""
    tensors = read_tensors(model)
    pairs = [(node, weight) for node, weight in find_weights(model) if weight]
    shapes = shapes_for_one_image(model, [node.input[0] for node, _ in pairs])
    for node, weight in pairs:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        shape, inputs = tensors[weight].values.shape, shapes[node.input[0]]
        reads, writes = widths(node, shape)
        grouped = attributes.get("group", 1) > 1
        for pair in product(choose_widths(reads, not grouped), choose_widths(writes, True)):
            for int8 in (False, True):
                yield layer_name(weight), pair, resize_kernel(node.op_type, shape, inputs, attributes, pair, int8)


def choose_widths(width: int, several: bool) -> list[int]:
    """Choose quarters of a width, each at least 1, or the width alone."""
    return sorted({max(1, width * quarter // 4) for quarter in QUARTERS}) if several else [width]


def resize_kernel(
    operator: str,
    weight: tuple[int, ...],
    inputs: tuple[int, ...],
    attributes: dict[str, Any],
    pair: Widths,
    int8: bool,
) -> Kernel:
    """Describe a layer at other widths; of a grouped convolution, groups go."""
    reads, writes = pair
    if operator.startswith("Conv"):
        group = attributes.get("group", 1)
        if group > 1:
            group = max(1, writes // max(1, weight[0] // group))
            writes = group * max(1, weight[0] // attributes["group"])
            attributes = attributes | {"group": group}
        weight, inputs = (writes, reads, *weight[2:]), (inputs[0], reads * group, *inputs[2:])
    else:
        weight = (writes, reads) if attributes.get("transB") else (reads, writes)
        inputs = (*inputs[:-1], reads)
    frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()}
    return Kernel(operator, weight, inputs, tuple(sorted(frozen.items())), int8)


def time_kernels(kernels: list[Kernel], threads: int) -> dict[Kernel, float]:
    """Time computations in milliseconds: each is the fastest of several passes over all, in random order."""
    clock, chance = Effort(rounds=1, precision=1.0, threads=threads).clock, random.Random(0)
    times = dict.fromkeys(kernels, float("inf"))
    for _ in range(PASSES):
        for kernel in chance.sample(kernels, len(kernels)):
            session = make_inference_session(build(kernel).SerializeToString(), threads)
            images = np.zeros(kernel.inputs, dtype=np.uint8 if kernel.int8 else np.float32)
            milliseconds = 1000 * seconds_of_fastest(lambda: session.run(None, {"x": images}), clock)  # noqa: B023
            times[kernel] = min(times[kernel], milliseconds)
    return times


def build(kernel: Kernel) -> onnx.ModelProto:
    """Build a file of one layer with random weights, with 8-bit integers as a quantized file holds it."""
    chance = np.random.default_rng(0)
    weight = chance.integers(-64, 64, kernel.weight).astype(np.int8)
    name = "y"
    if not kernel.int8:
        stored: dict[str, Any] = {"w": weight.astype(np.float32)}
        nodes = [helper.make_node(kernel.operator, ["x", "w"], [name], **dict(kernel.attributes))]
    else:
        stored = {"w_q": weight, "s": np.float32(0.02), "z": np.uint8(128), "w_s": np.float32(0.01), "w_z": np.int8(0)}
        name = "y_q"
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "s", "z"], ["x_f"]),
            helper.make_node("DequantizeLinear", ["w_q", "w_s", "w_z"], ["w"]),
            helper.make_node(kernel.operator, ["x_f", "w"], ["y"], **dict(kernel.attributes)),
            helper.make_node("QuantizeLinear", ["y", "s", "z"], [name]),
        ]
    element = onnx.TensorProto.UINT8 if kernel.int8 else onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        kernel.operator,
        [helper.make_tensor_value_info("x", element, kernel.inputs)],
        [helper.make_tensor_value_info(name, element, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


if __name__ == "__main__":
    run_stage(main)
