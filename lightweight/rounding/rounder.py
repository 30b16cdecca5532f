"""The rounder chooses the integers of all layers of a network from the Gram matrices of their inputs."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.gram.columns import split_weight
from lightweight.gram.measure import list_reconstructed, measure_grams
from lightweight.rounding.layer import RoundedLayer, Rounding, round_layer
from lightweight.rounding.onnx_file import float_weights, stored_layers, write_layer

COLUMNS = ["layer", "bits", "nearest_error", "error"]


@dataclass(frozen=True)
class RoundingPlan:
    """Describe how weights become integers: the method, whether biases make up for it, the largest integer of 8 bits.

    With `limits_sums`, no sum of neighbours may be cut off by a CPU. `in_4_bits` names the convolutions to store in 4
    bits; other layers keep the bits and scales that the file has.
    """

    rounding: Rounding
    correct_bias: bool
    high: int
    limits_sums: bool = False
    in_4_bits: Collection[str] = ()

    @property
    def changes_nothing(self) -> bool:
        """Return whether the integers and biases of ONNX Runtime's quantizer stay as they are."""
        return self.rounding == "nearest" and not self.correct_bias and not self.in_4_bits


class Rounder:
    """Round the layers of a quantized model; a resumed session does not round the layers that its checkpoint holds."""

    def __init__(self, plan: RoundingPlan, checkpointer: Checkpointer) -> None:
        self.plan, self.checkpointer = plan, checkpointer
        self.rounded: dict[str, RoundedLayer] = {}

    def fit(
        self,
        network: nn.Module,
        batches: Callable[[], Iterator[Tensor]],
        source: onnx.ModelProto,
        quantized: onnx.ModelProto,
        input_factors: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> None:
        """Round every layer that is integer in `quantized`, which was made of the float32 model `source`.

        `batches` yields normalised calibration images (N, C, H, W) for the network. In `source`, the inputs of the
        layers of `input_factors` are those of the network times factors, in the shape of the weight.
        """
        if self.plan.changes_nothing:
            return
        self.checkpointer.track("rounding", self)
        weights = float_weights(source)
        stored = stored_layers(quantized, self.plan.high, self.plan.limits_sums)
        layers = {
            name: layer
            for name, layer in list_reconstructed(network).items()
            if name in stored and weights[name].shape == layer.weight.shape
        }
        left = {name: layer for name, layer in layers.items() if name not in self.rounded}
        with tqdm(total=len(left), desc="rounding", leave=False, disable=None) as progress:
            for name, gram in measure_grams(network, batches, left):
                if name in input_factors:
                    factors = torch.from_numpy(input_factors[name].astype(np.float64))
                    gram.scale(split_weight(left[name], factors)[:, 0])
                kept = None if name in self.plan.in_4_bits else stored[name]
                self.rounded[name] = round_layer(left[name], weights[name], gram, kept, self.plan.rounding)
                self.checkpointer.save_if_due(f"layer {len(self.rounded) + 1} of {len(layers)}")
                progress.update()
        self.checkpointer.untrack("rounding")

    def write(self, model: onnx.ModelProto) -> None:
        """Put the rounded weights into a quantized model, in place; layers that stay float32 in it are left alone."""
        for name, rounded in self.rounded.items():
            write_layer(model, name, rounded, self.plan.correct_bias)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return a row of `COLUMNS` per layer, the one whose outputs changed most first."""
        found = [{"layer": name} | vars(layer) for name, layer in self.rounded.items()]
        return [{key: row[key] for key in COLUMNS} for row in sorted(found, key=lambda row: -row["error"])]

    def state_dict(self) -> dict[str, Any]:
        return {name: vars(item) for name, item in self.rounded.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rounded = {name: RoundedLayer(**values) for name, values in state.items()}
