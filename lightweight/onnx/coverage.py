"""Coverage of quantization: which layers run in int8 or are stored in fewer bits, and why others do not."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from lightweight.core.files import Table, read_csv
from lightweight.onnx.layer import Layer

MIN_INT8_SHARE = 0.9  # of the MACs, for methods that are meant for all layers
MIN_OTHER_SHARE = 0.005  # of the MACs: a smaller rest that belongs to no layer of the file is not listed
MAX_NAMES = 5  # of layers that `describe` lists for one reason


class Reason(StrEnum):
    """Name why a layer does not run on 8-bit integers; the value is the text in tables."""

    LINEAR_ONLY = "the method converts linear layers only"
    FP16_CANNOT = "fp16 cannot convert it"
    STATIC_CANNOT = "static cannot convert it"
    QAT_CANNOT = "qat cannot convert it"
    MAX_DROP = "max_drop keeps it in float32"
    EXCLUDED = "exclude names it"
    NOT_FUSED = "the runtime does not fuse it"
    ACTIVATIONS_ONLY = "a product of two activations"
    FLOAT16 = "stored in 16 bits, computed with in 32"
    INT4 = "stored in 4 bits"
    NOT_QUANTIZED = "not quantized"
    OTHER_OPERATORS = "operators that no method converts"


BY_DESIGN = {Reason.LINEAR_ONLY, Reason.FLOAT16, Reason.INT4, Reason.NOT_QUANTIZED}  # of methods for a part of a file
SENTENCES = {
    Reason.LINEAR_ONLY: "In float32 {stay} {names}: the method converts linear layers only.",
    Reason.FP16_CANNOT: "In float32 {stay} {names}: the method fp16 cannot convert such layers.",
    Reason.STATIC_CANNOT: "In float32 {stay} {names}: the method static cannot convert such layers.",
    Reason.QAT_CANNOT: "In float32 {stay} {names}: the method qat cannot convert such layers.",
    Reason.MAX_DROP: "In float32 {stay} {names}, or accuracy would drop by more than max_drop.",
    Reason.EXCLUDED: "In float32 {stay} {names}, as exclude asks.",
    Reason.NOT_FUSED: "In float32 {stay} {names}: the runtime does not fuse such layers into integer operators.",
    Reason.ACTIVATIONS_ONLY: "In float32 {stay} {names}, where two activations are multiplied.",
    Reason.FLOAT16: "In 16 bits the file stores {names}, and the runtime computes with them in 32.",
    Reason.INT4: "In 4 bits the file stores {names}.",
    Reason.NOT_QUANTIZED: "Nothing is quantized.",
    Reason.OTHER_OPERATORS: "The other MACs belong to operators that no method converts.",
}


@dataclass(frozen=True)
class LayerCoverage(Layer):
    """Describe a layer of a file with the reason why it does not run on 8-bit integers; None if it does.

    So that no CPU cuts sums, `moved` weights are an integer lower, and a step is on average `step` times as wide.
    """

    reason: Reason | None
    moved: int = 0
    step: float = 1.0


COLUMNS = [field.name for field in fields(LayerCoverage)]


def measure_coverage(
    layers: Iterable[Layer],
    convertible: Collection[str],
    excluded: Collection[str],
    method: str,
    macs: int = 0,
    changes: Mapping[str, tuple[int, float]] = MappingProxyType({}),
    named: Collection[str] = (),
) -> list[LayerCoverage]:
    """Return all layers, each with the reason why it does not run on 8-bit integers, None if it does.

    `convertible` names the layers that the method can convert, `excluded` those that went back to float32, and `named`
    those that the user keeps in float32. If the
    layers have fewer MACs than the whole network, `macs`, the rest becomes a last row by the name of `others`.
    `changes` hold `moved` and `step` of layers that were rounded anew, which count where a layer is stored in 8 bits.
    """
    coverage = []
    for layer in layers:
        moved, step = changes.get(layer.name, (0, 1.0)) if layer.bits == 8 else (0, 1.0)
        kept = dict.fromkeys(excluded, Reason.MAX_DROP) | dict.fromkeys(named, Reason.EXCLUDED)
        reason = _reason(layer, convertible, kept, method)
        coverage.append(LayerCoverage(**asdict(layer), reason=reason, moved=moved, step=round(step, 3)))
    others = macs - sum(layer.macs for layer in coverage)
    if others > MIN_OTHER_SHARE * macs:
        coverage.append(LayerCoverage("others", 0, 0, 32, others, False, Reason.OTHER_OPERATORS))
    return coverage


def _reason(layer: Layer, convertible: Collection[str], kept: Mapping[str, Reason], method: str) -> Reason | None:
    if layer.int8:
        return None
    if not layer.weights:
        return Reason.ACTIVATIONS_ONLY
    if layer.name in kept:
        return kept[layer.name]
    if layer.bits == 16:
        return Reason.FLOAT16
    if layer.bits == 4:
        return Reason.INT4
    if method == "none":
        return Reason.NOT_QUANTIZED
    if layer.name in convertible:
        return Reason.NOT_FUSED
    return Reason.LINEAR_ONLY if method in ("dynamic", "int4") else Reason(f"{method} cannot convert it")


def coverage_table(coverage: Iterable[LayerCoverage]) -> Table:
    """Make the table of plots/coverage.csv: a row per layer, without text where there is no reason."""
    return COLUMNS, [asdict(layer) for layer in coverage]


def read_coverage(path: Path) -> list[LayerCoverage]:
    """Read a table of `coverage_table` from its CSV file. Raises InputError when the file is missing."""
    return [
        LayerCoverage(
            name=row["name"],
            weights=int(row["weights"]),
            nonzero=int(row["nonzero"]),
            bits=int(row["bits"]),
            macs=int(row["macs"]),
            int8=row["int8"] == "True",
            reason=Reason(row["reason"]) if row["reason"] else None,
            moved=int(row["moved"]),
            step=float(row["step"]),
        )
        for row in read_csv(path)
    ]


def int8_share(coverage: Collection[LayerCoverage]) -> float:
    """Compute the share of the MACs that run on 8-bit integers; 0 when there are no MACs."""
    return sum(layer.macs for layer in coverage if layer.int8) / max(1, sum(layer.macs for layer in coverage))


def describe_limits(coverage: Collection[LayerCoverage]) -> str:
    """Say what it took that no CPU cuts sums of products; return the empty text if it took nothing."""
    changed = [layer for layer in coverage if layer.step != 1 or layer.moved]
    if not changed:
        return ""
    stored = sum(layer.bits == 8 for layer in coverage)
    moved = sum(layer.moved for layer in changed) / sum(layer.weights for layer in changed)
    widths = [layer.step for layer in changed]
    width = f"{min(widths):.2f} to {max(widths):.2f}" if len(changed) > 1 else f"{widths[0]:.2f}"
    return (
        f"So that no CPU cuts sums of products, steps are {width} times as wide in {len(changed)} of {stored} "
        f"8-bit layers, and {moved:.2%} of their weights were moved by one step or more."
    )


def _percent(share: float) -> str:
    """Write a share in whole percent; only all is 100%, and only none is 0%."""
    if 0.995 <= share < 1:
        return "more than 99%"
    return "less than 1%" if 0 < share < 0.005 else f"{share:.0%}"


def describe(coverage: Collection[LayerCoverage]) -> str:
    """Say in sentences which shares of the MACs and weights take fewer bits, and why the rest does not."""
    weights = max(1, sum(layer.weights for layer in coverage))
    is_partial = any(layer.reason is Reason.OTHER_OPERATORS for layer in coverage)
    owner = "the weights of convolutions and matrix products" if is_partial else "the weights"
    clauses = [f"{_percent(int8_share(coverage))} of the MACs run on 8-bit integers"]
    for bits in (4, 8, 16):
        if count := sum(layer.weights for layer in coverage if layer.bits == bits):
            clauses.append(f"{_percent(count / weights)} of {owner} take {bits} bits")
    return " ".join([f"{'; '.join(clauses)}.", *_explain(coverage, MAX_NAMES)])


def warning(coverage: Collection[LayerCoverage]) -> str:
    """Warn if a method for all layers leaves more than a tenth of the MACs in float32; else return the empty text."""
    reasons = {layer.reason for layer in coverage}
    if reasons & BY_DESIGN or int8_share(coverage) >= MIN_INT8_SHARE:
        return ""
    text = f"warning: less than {MIN_INT8_SHARE:.0%} of the MACs run on 8-bit integers."
    return " ".join([text, *_explain(coverage, len(coverage))])


def _explain(coverage: Collection[LayerCoverage], max_names: int) -> list[str]:
    """Make a sentence for every reason, in the order of the layers."""
    names: dict[Reason, list[str]] = {}
    for layer in coverage:
        if layer.reason is not None:
            names.setdefault(layer.reason, []).append(layer.name)
    return [
        SENTENCES[reason].format(stay="stays" if len(layers) == 1 else "stay", names=_enumerate(layers, max_names))
        for reason, layers in names.items()
    ]


def _enumerate(names: Sequence[str], max_names: int) -> str:
    """Join names as in `a, b and c`, or `a, b and 3 more` beyond `max_names`."""
    few = [*names[:max_names], *([f"{len(names) - max_names} more"] if len(names) > max_names else [])]
    return " and ".join(filter(None, [", ".join(few[:-1]), few[-1]]))
