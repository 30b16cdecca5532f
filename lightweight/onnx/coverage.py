"""What part of a file takes fewer bits or runs on integers, and why the rest does not."""

from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import Any

COLUMNS = ["name", "weights", "nonzero", "bits", "macs", "int8", "reason"]
PARTIAL = ("not quantized", "stored in")  # reasons of methods that leave whole layers in float, as they should
ENOUGH = 0.9  # of the MACs, where a method is meant for all layers
LEFT = "the method converts linear layers only"
ELSEWHERE = "operators that no method converts"


def rows(
    layers: Iterable[Any], convertible: Collection[str], excluded: Collection[str], method: str, macs: int = 0
) -> list[dict[str, Any]]:
    """A row per layer of `graph.layers`, with the reason why it does not run on 8-bit integers.

    `convertible` names the layers that the method can convert, `kept` those that went back to float32. What they lack
    of the `macs` of the whole network has a row of its own.
    """
    found = [asdict(layer) | {"reason": _reason(layer, convertible, excluded, method)} for layer in layers]
    rest = macs - sum(row["macs"] for row in found)
    if rest > 0.005 * macs:
        other = {"name": "others", "weights": 0, "nonzero": 0, "bits": 32, "macs": rest, "int8": False}
        found.append(other | {"reason": ELSEWHERE})
    return found


def _reason(layer: Any, convertible: Collection[str], excluded: Collection[str], method: str) -> str:
    if layer.int8:
        return ""
    if not layer.weights:
        return "a product of two activations"
    if layer.name in excluded:
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
    whose = "of convolutions and matrix products " * any(row["reason"] == ELSEWHERE for row in found)
    parts = [f"{int8_share(found):.0%} of the MACs run on 8-bit integers"]
    for bits in (4, 8, 16):
        few = sum(int(row["weights"]) for row in found if int(row["bits"]) == bits)
        parts += [f"{few / weights:.0%} of the weights {whose}take {bits} bits"] if few else []
    left = [f"{_few(names)}: {reason}" for reason, names in _left(found).items()]
    return "; ".join([", ".join(parts), *left])


def warning(found: Collection[dict[str, Any]]) -> str:
    """A line where a method for all layers leaves too much behind, else nothing."""
    meant = not any(row["reason"].startswith((LEFT, *PARTIAL)) for row in found)
    if not meant or int8_share(found) >= ENOUGH:
        return ""
    left = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in _left(found).items())
    return f"warning: less than {ENOUGH:.0%} of the MACs run on 8-bit integers; in float: {left}"


def _left(found: Collection[dict[str, Any]]) -> dict[str, list[str]]:
    """The names of what does not run on integers, by reason."""
    reasons = dict.fromkeys(row["reason"] for row in found if row["reason"])
    return {reason: [row["name"] for row in found if row["reason"] == reason] for reason in reasons}


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
