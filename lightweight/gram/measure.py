"""Gram matrices of the inputs of layers on calibration images: all that layer-wise compression needs to know of them.

A change e of a row of weights changes the squared outputs of a layer by e^T H e, summed over the images, where H is the
Gram matrix of the inputs (Hassibi and Stork 1993; Frantar, Singh and Alistarh 2022). Inputs are rounded to 16 bits of
the largest in a batch. Then every sum of a batch is exact, and all machines compute the same matrix.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightweight.gram.columns import ReconstructedLayer, Window, gram_shape, input_columns
from lightweight.gram.matmul import scale_to

aten = torch.ops.aten
# The position of the inputs among the arguments of an operator; the weight, or a view of it, follows.
INPUTS = {
    aten.convolution.default: 0, torch.ops.mkldnn._linear_pointwise.default: 0, aten.linear.default: 0,
    aten.mm.default: 0, aten.addmm.default: 1,
}  # fmt: skip
BITS = 16  # of the inputs, beside the sign
IMAGES_PER_BATCH = 32
POSITIONS_PER_BATCH = 4096  # of each layer; 2^12 products of 2^32 have exact sums
MAX_BYTES = 2**30  # of the Gram matrices that are measured together


@dataclass
class Gram:
    """Hold the Gram matrices (G, K, K) of a layer's inputs, the sums of the inputs (G, K), and the number of positions.

    G counts the groups of a convolution, or the blocks of columns of a wide layer; K columns stand as in the weight.
    """

    matrix: Tensor
    sums: Tensor
    positions: int = field(default=0)

    @property
    def mean(self) -> Tensor:
        """Return the mean input (G, K)."""
        return self.sums / max(self.positions, 1)

    def add(self, columns: Tensor) -> None:
        """Add the inputs (G, K, positions) of a batch."""
        scale = scale_to(columns, BITS)
        integers = (columns.double() / scale).round_()
        self.matrix += (integers @ integers.mT).mul_(scale * scale)
        self.sums += integers.sum(-1).mul_(scale)
        self.positions += columns.shape[-1]

    def scale(self, factors: Tensor) -> None:
        """Make these the matrices of the inputs times factors (G, K), in place."""
        self.matrix *= factors[:, :, None] * factors[:, None]
        self.sums *= factors


def list_reconstructed(network: nn.Module) -> dict[str, ReconstructedLayer]:
    """List by name the convolutions and linear layers whose inputs can be measured."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, ReconstructedLayer)}


def measure_grams(
    network: nn.Module,
    batches: Callable[[], Iterator[Tensor]],
    layers: Mapping[str, ReconstructedLayer],
    max_bytes: int = MAX_BYTES,
) -> Iterator[tuple[str, Gram]]:
    """Yield the Gram matrices of the layers in their order, by name, from batches of network inputs (N, C, H, W).

    Layers are measured together as far as their matrices fit into `max_bytes`, so that `batches` may be called several
    times. Expects the network in evaluation mode; leaves it as it is.
    """
    for part in _split_by_memory(layers, max_bytes):
        grams = {name: _empty(layer) for name, layer in part.items()}
        with torch.no_grad(), _AddingInputs({layer: grams[name] for name, layer in part.items()}):
            for images in batches():
                network(images)
        while grams:
            name = next(iter(grams))
            yield name, grams.pop(name)


def _empty(layer: ReconstructedLayer) -> Gram:
    number, columns = gram_shape(layer)
    return Gram(
        torch.zeros(number, columns, columns, dtype=torch.float64), torch.zeros(number, columns, dtype=torch.float64)
    )


def _split_by_memory(
    layers: Mapping[str, ReconstructedLayer], max_bytes: int
) -> Iterator[dict[str, ReconstructedLayer]]:
    """Split layers, in order, into parts whose matrices fit into `max_bytes`, of one layer at least."""
    part: dict[str, ReconstructedLayer] = {}
    used = 0
    for name, layer in layers.items():
        number, columns = gram_shape(layer)
        size = 8 * number * columns**2
        if part and used + size > max_bytes:
            yield part
            part, used = {}, 0
        part[name] = layer
        used += size
    if part:
        yield part


class _AddingInputs(TorchDispatchMode):
    """Add the inputs of layers to their Gram matrices whenever a convolution or matrix product reads their weights.

    What counts is the operator that runs, whichever module calls it: one that pads its inputs itself, or several.
    """

    def __init__(self, grams: Mapping[ReconstructedLayer, Gram]) -> None:
        super().__init__()
        self.layers = {layer.weight.data_ptr(): (layer, gram) for layer, gram in grams.items()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        place = INPUTS.get(func)
        if place is not None:
            inputs, weight = args[place : place + 2]
            layer, gram = self.layers.get(weight.data_ptr(), (None, None))
            if layer is not None and gram is not None and weight.numel() == layer.weight.numel():
                window = Window(*args[3:6]) if func is aten.convolution.default else None
                with torch.utils._python_dispatch._disable_current_modes():
                    gram.add(input_columns(layer, inputs.detach().cpu(), POSITIONS_PER_BATCH, window))
        return func(*args, **(kwargs or {}))
