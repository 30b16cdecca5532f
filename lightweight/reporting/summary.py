"""One plain sentence per model says what pruning did to bytes, MACs and latency, and why."""

from typing import Any

from lightweight.reporting.table import Metrics

EXPORTED = "the original exported to ONNX Runtime"


def explain(metrics: Metrics, latency: Metrics) -> list[str]:
    """Sentences on the variants that pruning shapes, against the original; latencies where they were measured."""
    return [f"{name}: {_sentence(metrics, name, latency.get(measured, {}))}" for name, measured in MODELS.items()]


MODELS = {"pruned": "", "recalibrated": "recalibrated", "optimized": "optimized"}  # and whose latency is its own


def _sentence(metrics: Metrics, name: str, latency: dict[str, Any]) -> str:
    before, after = metrics["original"], metrics[name]
    pruned = metrics["recalibrated" if name == "optimized" else name]  # rounding to int8 makes zeros, too
    removed = 1 - pruned["parameters"] / before["parameters"]
    zeros = 1 - pruned["nonzero_parameters"] / pruned["parameters"]
    bytes_each, bytes_before = (scores["size_bytes"] / scores["parameters"] for scores in (after, before))
    fewer = bytes_each < 0.95 * bytes_before
    facts = [_times("file", before, after, "size_bytes"), _times("compressed", before, after, "compressed_bytes")]
    facts += [_macs(before["macs"], after["macs"]), *(_latency(batch, found) for batch, found in latency.items())]
    return f"{_what(removed, zeros, fewer)}. {', '.join(fact for fact in facts if fact)}. {_why(removed, zeros, fewer)}"


def _what(removed: float, zeros: float, fewer: bool) -> str:
    parts = []
    if removed >= 0.005:
        parts.append(f"{removed:.0%} of the parameters are removed")
    if zeros >= 0.005:
        parts.append(f"{zeros:.0%} of {'the rest' if parts else 'the parameters'} are zero")
    done = " and ".join(parts) or "next to nothing is pruned"
    return f"{done}, and weights are stored in fewer bits" if fewer else done


def _times(what: str, before: dict[str, Any], after: dict[str, Any], key: str) -> str:
    times = before[key] / after[key]
    change = f"{times:.1f} times smaller" if times >= 1.05 else f"{1 / times:.1f} times larger" if times <= 0.95 else ""
    return f"{what} {change or 'as large as before'}"


def _macs(before: int, after: int) -> str:
    return "MACs unchanged" if after > 0.995 * before else f"{1 - after / before:.0%} of the MACs gone"


def _latency(batch: str, found: Any) -> str:
    """Against the exported original, which the same runtime runs."""
    if not batch.startswith("batch_") or "against_exported" not in found:
        return ""
    ratio, where = found["against_exported"], f"latency at {batch.replace('_', ' ')}"
    if ratio["verdict"] == "no difference":
        return f"{where} unchanged"
    interval = f"[{ratio['speedup_low']:.2f}, {ratio['speedup_high']:.2f}]"
    return f"{where} {ratio['speedup']:.2f} times {interval} as fast as {EXPORTED}"


def _why(removed: float, zeros: float, fewer: bool) -> str:
    parts = []
    if removed >= 0.005:
        parts.append("Removed channels are neither stored nor computed.")
    if zeros >= 0.005:
        why = "Zeros are stored and multiplied like other weights, only compression gains by them"
        parts.append(f"{why}{'.' if removed >= 0.005 else ': choose prune.method: structured for speed.'}")
    if fewer:
        parts.append("A weight in 16, 8 or 4 bits takes that much less room than one in 32.")
    return " ".join(parts) or "There is nothing to gain from."
