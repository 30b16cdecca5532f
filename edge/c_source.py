"""Write the numbers of an integer network as a C header, which `c/network.c` includes."""

from collections.abc import Iterable

import numpy as np

from edge.integer_network import MULTIPLIERS, IntegerLayer, IntegerNetwork
from edge.weight_coder import encode_weights

LINE = 100  # characters
POOLS = {"none": "NO_POOL", "max": "MAX_POOL", "mean": "MEAN_POOL"}


def write_header(network: IntegerNetwork) -> str:
    """Return the text of `network_data.h`."""
    layers = network.layers
    sizes = [int(np.prod(layer.step.size)) for layer in layers]
    values = {
        "LAYERS": len(layers),
        "CLASSES": layers[-1].step.output[0],
        "EVEN_BYTES": max(sizes[0::2]),
        "ODD_BYTES": max(sizes[1::2], default=1),
        "MOST_WEIGHTS": max(layer.step.integers[0].size for layer in layers),
    }
    biases = np.concatenate([layer.biases >> layer.bias_shift for layer in layers])
    codes = np.concatenate([layer.scale.codes for layer in layers])
    weights = encode_weights(layer.step.integers for layer in layers)
    small = max(int(np.abs(layer.step.integers).max(initial=0)) for layer in layers) < 128
    return "\n".join(
        [
            "/* Written by edge/c_source.py. Arrays over channels hold those of one layer after the other. */",
            f"enum {{ {', '.join(f'{name} = {value}' for name, value in values.items())} }};",
            f"typedef {'int8_t' if small else 'int16_t'} weight_t;",
            _array("int32_t", "COLOURS[][2]", (f"{{{factor}, {summand}}}" for factor, summand in network.colours)),
            _array("layer_t", "LAYER[LAYERS]", map(_describe, layers)),
            _array("uint16_t", "MULTIPLIERS[]", MULTIPLIERS),
            _array("int16_t", "SCALE_CODES[]", codes),
            _array("int16_t", "BIASES[]", biases),
            _array("uint8_t", "WEIGHTS[]", weights),
            "",
        ]
    )


def _describe(layer: IntegerLayer) -> str:
    """Return the members of a layer in the order of `layer_t`."""
    step = layer.step
    pooled = step.convolved if step.pool == "mean" else (step.window, step.window)
    mean = (layer.mean.before, int(layer.mean.codes[0])) if layer.mean else (0, 0)
    sizes = [*step.size, *step.output, *step.integers.shape[2:], step.stride, step.pad, layer.zero, int(step.relu)]
    rest = [*pooled, step.window_stride, layer.bias_shift, layer.scale.before, *mean]
    return f"{{{', '.join(map(str, [*sizes, POOLS[step.pool], *rest]))}}}"


def _array(kind: str, name: str, items: Iterable[object]) -> str:
    """Write an array of items in lines."""
    lines = [""]
    for item in items:
        if len(lines[-1]) + len(str(item)) + 2 > LINE:
            lines.append("")
        lines[-1] += f"{item}, "
    text = "\n".join(f"    {line.rstrip()}" for line in lines)
    return f"static const {kind} {name} = {{\n{text}\n}};"
