"""Evidence for `quantize.exclude`: what each layer does to the logits, alone and by its absence."""

from collections.abc import Callable, Collection
from typing import Any

COLUMNS = ["layer", "only_nearest", "only", "others_nearest", "others"]
# Returns the errors of the logits of files without these layers: rounded to nearest, and as the parameters ask.
Errors = Callable[[Collection[str]], tuple[float, float]]


def measure_layers(layers: Collection[str], errors: Errors) -> list[dict[str, Any]]:
    """Measure each layer by two files, one in which it alone is converted, one in which all others are.

    Returns a row of `COLUMNS` per layer, the one first that makes the largest error alone.
    """
    rows = []
    for layer in layers:
        alone, others = errors([name for name in layers if name != layer]), errors([layer])
        rows.append(dict(zip(COLUMNS, (layer, *alone, *others), strict=True)))
    return sorted(rows, key=lambda row: -row["only"])
