"""Choose the integers of every layer without training: those of few bits that change the layer's outputs little.

The rate is a term of the error that columns are chosen by, as in CERWU (Conzelmann and Bamler 2025), and the update of
the columns that are left is that of Optimal Brain Compression (Frantar, Singh and Alistarh 2022).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.codec.scales import STEPS, nearest_codes, scales_of
from lightweight.codec.tensors import CodedTensor
from lightweight.gram.columns import ReconstructedLayer, merge_weight, split_weight
from lightweight.gram.matmul import exact_matmul
from lightweight.gram.measure import Gram, list_reconstructed, measure_grams
from lightweight.gram.sweep import Sweep, prepare_sweep
from lightweight.onnx.weights import list_weighted_nodes
from lightweight.rounding.onnx_file import float_weights, is_transposed, shift_bias

LARGEST = 127  # integer
STEP_FACTORS = (0.35, 0.5, 0.71, 1.0, 1.41)  # of the step that is best at a high rate, of which the best is taken
ROUNDS = 2  # of choosing integers by the bits that those of the round before take
PRIOR = 0.3  # count of every integer


@dataclass(frozen=True)
class CompactLayer:
    """Hold integers (M, ...), the code of their scale, and the shift (M,) of mean outputs that a bias makes up for."""

    integers: Tensor
    code: int
    shift: Tensor
    bits: float
    error: float


class LayerwiseRounder:
    """Choose the integers of all layers; a resumed session does not choose again those that its checkpoint holds."""

    def __init__(self, rate: float, checkpointer: Checkpointer) -> None:
        self.rate, self.checkpointer = rate, checkpointer
        self.layers: dict[str, CompactLayer] = {}

    def fit(self, network: nn.Module, batches: Callable[[], Iterator[Tensor]], model: onnx.ModelProto) -> None:
        """Choose the integers of the layers of an exported model, from normalised images (N, C, H, W) in batches."""
        self.checkpointer.track("layerwise", self)
        weights = float_weights(model)
        found = list_reconstructed(network).items()
        layers = {name: layer for name, layer in found if name in weights and weights[name].shape == layer.weight.shape}
        left = {name: layer for name, layer in layers.items() if name not in self.layers}
        with tqdm(total=len(left), desc="compact", leave=False, disable=None) as progress:
            for name, gram in measure_grams(network, batches, left):
                self.layers[name] = compact_layer(left[name], weights[name], gram, self.rate)
                self.checkpointer.save_if_due(f"layer {len(self.layers) + 1} of {len(layers)}")
                progress.update()
        self.checkpointer.untrack("layerwise")

    def write(self, model: onnx.ModelProto) -> dict[str, CodedTensor]:
        """Add the shifts to the biases of an exported model, in place; return its weights, coded, by their names."""
        weights: dict[str, CodedTensor] = {}
        for name, (node, *_) in list_weighted_nodes(model).items():
            layer = self.layers.get(name)
            if layer is not None:
                integers, code = layer.integers.numpy(), np.array([layer.code])
                weights[node.input[1]] = CodedTensor(integers.T if is_transposed(node) else integers, code)
                shift_bias(model, node, layer.shift.numpy())
        return weights

    def state_dict(self) -> dict[str, Any]:
        return {name: vars(layer) for name, layer in self.layers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.layers = {name: CompactLayer(**values) for name, values in state.items()}


def compact_layer(layer: ReconstructedLayer, weight: Tensor, gram: Gram, rate: float) -> CompactLayer:
    """Choose the step and the integers of a weight at which error and bits together cost least.

    The error is the change of the layer's outputs as a share of the outputs, squared; a bit costs `rate`.
    """
    rows, sweep = split_weight(layer, weight.double()), prepare_sweep(gram.matrix)
    energy = _energy(rows, gram.matrix)
    price = rate * energy if energy > 0 else 1.0
    # At a high rate, error d * step^2 / 12 and log2(step) bits cost least together at this step.
    logarithms = sweep.factors.diagonal.log().flatten().cumsum(0)[-1] / sweep.factors.diagonal.numel()
    best_step = math.sqrt(6 * price / math.log(2) / math.exp(float(logarithms)))
    candidates = [_choose(rows, gram, sweep, best_step * factor, price) for factor in STEP_FACTORS]
    _, integers, code, bits, error = min(candidates, key=lambda candidate: candidate[0])
    step = float(scales_of(np.array([code]))[0])
    shift = ((rows - integers * step) * gram.mean[:, None]).cumsum(-1)
    shift[..., :-1] = 0  # the last column holds the sum, which stays after merging
    merged = merge_weight(layer, integers).to(torch.int32)
    shifts = merge_weight(layer, shift).flatten(1).sum(1).float()
    return CompactLayer(merged, code, shifts, bits, math.sqrt(error / energy) if energy > 0 else 0.0)


def _choose(
    rows: Tensor, gram: Gram, sweep: Sweep, step: float, price: float
) -> tuple[float, Tensor, int, float, float]:
    """Choose integers of rows (G, R, K) for a step: their cost, integers, the code of the step, bits and error."""
    code = int(nearest_codes(np.array([step]), STEPS // 4)[0])
    step = float(scales_of(np.array([code]))[0])
    integers = (rows / step).round_().clamp_(-LARGEST, LARGEST)
    for _ in range(ROUNDS):
        chooser = RateChooser(step, bits_by_integer(integers), price)
        integers = (sweep(rows, chooser) / step).round_()
    bits = float(bits_by_integer(integers)[(integers + LARGEST).long()].flatten().cumsum(0)[-1])
    error = _energy(rows - integers * step, gram.matrix)
    return error + price * bits, integers, code, bits, error


class RateChooser:
    """Choose, for `gram.sweep`, the integer next to a target or a smaller one, whichever costs less with its bits."""

    def __init__(self, step: float, bits: Tensor, price: float) -> None:
        self.step, self.costs = step, price * bits

    def __call__(self, targets: Tensor, columns: Tensor, importance: Tensor) -> Tensor:
        """Choose values for the columns (G,) from their targets (G, rows); an error counts by `importance` (G,)."""
        position = targets / self.step
        nearest = position.round().clamp_(-LARGEST, LARGEST)
        candidates = torch.stack([nearest, nearest - nearest.sign(), torch.zeros_like(nearest)])
        errors = (candidates - position).square_().mul_(importance[:, None] * self.step**2)
        costs = errors + self.costs[(candidates + LARGEST).long()]
        return candidates.gather(0, costs.argmin(0, keepdim=True))[0] * self.step


def bits_by_integer(integers: Tensor) -> Tensor:
    """Compute the bits of each integer from -LARGEST to LARGEST by its share, float64."""
    counts = torch.bincount((integers + LARGEST).long().flatten(), minlength=2 * LARGEST + 1)
    total = float(counts.sum()) + PRIOR * len(counts)
    return torch.tensor([-math.log2((float(count) + PRIOR) / total) for count in counts], dtype=torch.float64)


def _energy(rows: Tensor, matrix: Tensor) -> float:
    """Compute the squared outputs that rows (G, R, K) cause."""
    return float((exact_matmul(rows, matrix) * rows).flatten().cumsum(0)[-1].clamp_min(0))
