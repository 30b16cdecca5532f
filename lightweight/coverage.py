"""What part of a file takes fewer bits or runs on integers, and why the rest does not."""

from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import Any

ENOUGH = 0.9  # of the MACs, where a method is meant for all layers
LEFT = "the method converts linear layers only"


def rows(
    layers: Iterable[Any], convertible: Collection[str], kept: Collection[str], method: str
) -> list[dict[str, Any]]:
    """A row per layer of `graph.layers`, with the reason why it does not run on 8-bit integers.

    `convertible` names the layers that the method can convert, `kept` those that went back to float32.
    """
    return [asdict(layer) | {"reason": _reason(layer, convertible, kept, method)} for layer in layers]


def _reason(layer: Any, convertible: Collection[str], kept: Collection[str], method: str) -> str:
    if layer.int8:
        return ""
    if not layer.weights:
        return "a product of two activations"
    if layer.name in kept:
        return "max_drop keeps it in float32"
    if layer.bits == 16:
        return "stored in 16 bits, computed with in 32"
    if layer.bits == 4:
        return "stored in 4 bits"
    if method == "none":
        return "not quantized"
    if layer.name not in convertible:
        return LEFT if method in ("dynamic", "int4") else f"{method} cannot convert it"
    return "the runtime does not fuse it"


def int8_share(found: Collection[dict[str, Any]]) -> float:
    """Of the MACs; 0 of none."""
    macs = sum(int(row["macs"]) for row in found)
    return sum(int(row["macs"]) for row in found if str(row["int8"]) == "True") / max(1, macs)


def describe(found: Collection[dict[str, Any]]) -> str:
    """A sentence of rows, as they are or as a CSV file gives them."""
    weights = max(1, sum(int(row["weights"]) for row in found))
    parts = [f"{int8_share(found):.0%} of the MACs run on 8-bit integers"]
    for bits in (4, 8, 16):
        few = sum(int(row["weights"]) for row in found if int(row["bits"]) == bits)
        parts += [f"{few / weights:.0%} of the weights take {bits} bits"] if few else []
    reasons = dict.fromkeys(row["reason"] for row in found if row["reason"])
    names = {reason: [row["name"] for row in found if row["reason"] == reason] for reason in reasons}
    left = [f"{_few(names[reason])}: {reason}" for reason in reasons]
    return "; ".join([", ".join(parts), *left])


def warning(found: Collection[dict[str, Any]], method: str) -> str:
    """A line where a method for all layers leaves too much behind, else nothing."""
    if method not in ("static", "qat") or int8_share(found) >= ENOUGH:
        return ""
    return f"warning: less than {ENOUGH:.0%} of the MACs run on 8-bit integers\n"


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
