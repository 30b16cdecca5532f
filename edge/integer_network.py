"""An integer-only version of a compact network: bytes for activations, integers for weights, sums and logits.

The sums of a convolution are pooled, multiplied by a whole number and shifted to bytes (Jacob et al. 2018, Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference). `c/network.c` computes the same.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass
from math import log2

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, pad

from edge.sequence import Sequence, Step
from lightweight.codec.scales import MANTISSAS, STEPS, scales_of
from lightweight.core.errors import InputError

LARGEST = 255  # activation
LOGIT = 1 << 14  # the largest of the calibration images, nearly
PRECISION = 14  # bits of a multiplier after the first
MULTIPLIERS = np.array(MANTISSAS) >> 23 - PRECISION
MOST_BIAS = (1 << 15) - 1  # of those that are stored, in 16 bits
PIXEL_BITS = 16  # by which products of pixels are shifted


@dataclass(frozen=True)
class Rescaling:
    """Multiply whole numbers by 2^(code / 32): by one of 32 multipliers, then a shift to the right, rounded half up.

    A shift before the multiplication keeps the product within 31 bits.
    """

    codes: np.ndarray  # of channels
    before: int

    @staticmethod
    def fit(codes: np.ndarray, largest: int) -> "Rescaling":
        """Choose the shift before for numbers up to `largest`. Raises InputError where another is none of 1 to 31."""
        found = Rescaling(codes, max(0, int(largest).bit_length() - 15))
        if found.shifts.min() < 1 or found.shifts.max() > 31:
            raise InputError(f"A layer has sums up to {largest:,}, with scales that 32 bits cannot bring to bytes")
        return found

    @property
    def shifts(self) -> np.ndarray:
        """Compute the shifts after the multiplication, of channels."""
        return np.asarray(PRECISION - self.codes // STEPS - self.before)

    def __call__(self, values: Tensor) -> Tensor:
        """Rescale values (N, C, H, W)."""
        factors, shifts = (
            torch.from_numpy(part).reshape(1, -1, 1, 1) for part in (MULTIPLIERS[self.codes % STEPS], self.shifts)
        )
        return ((values.to(torch.int64) >> self.before) * factors + (1 << shifts - 1)) >> shifts


@dataclass(frozen=True)
class IntegerLayer:
    """Hold a step in integers: biases are whole multiples of 2^bias_shift, in units of the sums."""

    step: Step
    zero: int  # the byte of the input that stands for 0
    biases: np.ndarray
    bias_shift: int
    scale: Rescaling
    mean: Rescaling | None  # of the sum over all positions

    def __call__(self, values: Tensor) -> Tensor:
        """Compute the bytes (N, M, H, W) of the next layer, or logits, from bytes (N, C, H, W)."""
        sums = convolve(self.step, values - self.zero) + torch.from_numpy(self.biases).reshape(1, -1, 1, 1)
        if self.step.pool == "max":
            sums = max_pool2d(sums, self.step.window, self.step.window_stride)
        values = self.scale(sums)
        values = values.clamp(0, LARGEST) if self.step.relu else values
        return self.mean(values.sum((2, 3), keepdim=True)).clamp(0, LARGEST) if self.mean else values


@dataclass(frozen=True)
class IntegerNetwork:
    """Hold the layers, and by colour what makes a pixel a byte: (pixel * factor + summand) >> 16."""

    colours: Items[tuple[int, int]]
    layers: Items[IntegerLayer]

    def logits(self, pixels: Tensor) -> np.ndarray:
        """Compute the logits of images, uint8 (N, C, H, W): int32 (N, classes)."""
        factors, summands = (torch.tensor(part).reshape(1, -1, 1, 1) for part in zip(*self.colours, strict=True))
        values = ((pixels.to(torch.int64) * factors + summands) >> PIXEL_BITS).clamp(0, LARGEST)
        for layer in self.layers:
            values = layer(values)
        return values.flatten(1).numpy().astype(np.int32)


def convolve(step: Step, values: Tensor) -> Tensor:
    """Convolve values (N, C, H, W) with a step's integers, in float64, which holds these sums exactly."""
    values = values.double().reshape(len(values), *step.size)
    return conv2d(pad(values, (step.pad,) * 4), torch.from_numpy(step.integers).double(), stride=step.stride)


def make_integers(sequence: Sequence, pixels: Tensor) -> IntegerNetwork:
    """Make the integer network of a sequence, with ranges of activations from images, uint8 (N, C, H, W).

    Scales are powers of 2^(1/32), `code` of them, so that products of scales are sums of codes. Raises InputError for
    sums that 32 bits do not hold.
    """
    mean, factor = (torch.from_numpy(part).reshape(1, -1, 1, 1) for part in (sequence.mean, sequence.factor))
    floats = (pixels.double() - mean) * factor
    lowest, highest = float((-mean * factor).min()), float(((255 - mean) * factor).max())
    code = float(np.ceil(STEPS * log2((highest - lowest) / (LARGEST - 1))))
    scale = 2 ** (code / STEPS)
    zero = round(-lowest / scale)
    parts = zip(sequence.mean / scale, sequence.factor, strict=True)
    one = 1 << PIXEL_BITS
    colours = [(round(times / scale * one), round((zero - less * times + 0.5) * one)) for less, times in parts]
    layers = []
    for step in sequence.steps:
        floats = _compute(step, floats)
        layer, code = _make_layer(step, floats, code, zero, step is sequence.steps[-1])
        floats, zero = floats.mean((2, 3), keepdim=True) if layer.mean else floats, 0
        layers.append(layer)
    return IntegerNetwork(colours, layers)


def _compute(step: Step, values: Tensor) -> Tensor:
    """Compute a step in float64, but for a mean."""
    scales, biases = (
        torch.from_numpy(part).double().reshape(1, -1, 1, 1) for part in (scales_of(step.codes), step.biases)
    )
    values = convolve(step, values) * scales + biases
    values = max_pool2d(values, step.window, step.window_stride) if step.pool == "max" else values
    return values.relu() if step.relu else values


def _make_layer(step: Step, outputs: Tensor, code: float, zero: int, last: bool) -> tuple[IntegerLayer, float]:
    """Make the layer of a step whose input has the scale `code`, from its float outputs; return it and its scale."""
    exact = step.biases / 2 ** ((step.codes + code) / STEPS)
    bias_shift = int(np.abs(exact).max() / MOST_BIAS).bit_length()
    biases = np.rint(exact / (1 << bias_shift)).astype(np.int64) << bias_shift
    most = np.abs(step.integers.reshape(len(biases), -1)).sum(1, dtype=np.int64) * LARGEST + np.abs(biases)
    shift, after = _bring_to(LOGIT if last else LARGEST, float(outputs.abs().max()), code)
    scale, mean = Rescaling.fit(step.codes + shift, int(most.max())), None
    if step.pool == "mean":
        number = step.convolved[0] * step.convolved[1]
        largest = float(outputs.mean((2, 3)).max())
        shift, after = _bring_to(LARGEST, largest, after - STEPS * log2(number))
        mean = Rescaling.fit(np.array([shift]), LARGEST * number)
    return IntegerLayer(step, zero, biases, bias_shift, scale, mean), after


def _bring_to(limit: int, largest: float, code: float) -> tuple[int, float]:
    """Find the whole code to add to a scale so that `largest` is at most `limit`; return it and the new scale."""
    shift = int(np.floor(code - STEPS * log2(max(largest, 1e-9) / limit)))
    return shift, code - shift
