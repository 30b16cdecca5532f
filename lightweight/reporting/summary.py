"""Sentences that say what compression did to accuracy, bytes, MACs and latency, and why, for a reader new to it."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightweight.evaluation.statistics import smallest_detectable_loss
from lightweight.reporting.phrases import (
    NOTICEABLE,
    change_of_size,
    enumeration,
    layers,
    percent,
    share_of_weights,
    speed,
)
from lightweight.reporting.results import Latency, Scores

Row = Mapping[str, str]  # of plots/sparsity.csv

FEW = 0.005  # share below which removed parameters, zeros and saved MACs explain nothing
LOW = 0.05  # share of zeros that is too low for the file to gain much from being zipped
FLOAT_BYTES = 4  # per parameter, the least that a file of float32 weights takes


def headline(scores: Scores, latency: Latency) -> list[str]:
    """Compare the optimized file with the original: a line on size and accuracy, then one per measured batch size."""
    original, optimized = scores["original"], scores["optimized"]
    points = 100 * (optimized["accuracy"] - original["accuracy"])
    accuracy = f"{abs(points):.2f} points {'more' if points > 0 else 'less'} accurate" if points else "as accurate"
    lines = [
        f"The optimized file is {change_of_size(original['size_bytes'], optimized['size_bytes'], 'the original')} and "
        f"{accuracy}: of {optimized['images']:,} test images it newly gets {optimized['gained']:,} right and "
        f"{optimized['lost']:,} wrong (exact McNemar test: p = {optimized['mcnemar_p']:.2g}; "
        f"{_detectable(optimized['images'])})."
    ]
    for batch, measured in _batches(latency.get("optimized", {})).items():
        rival = measured.get("against_exported")
        same = f"{speed(rival, ' as the original exported to ONNX without compression')}, and " if rival else ""
        lines.append(f"At {batch} it runs {same}{speed(measured, ' as the original in PyTorch')}.")
    return lines


def warn_of_inexact(record: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say by the record of provenance that results depend on the number of processes, if training was not exact."""
    models = [entry for path, entry in record.items() if path.startswith("models/")]
    counts = sorted({entry["processes"] for entry in models if "processes" in entry})
    if not counts:
        return []
    number = enumeration([str(count) for count in counts])
    return [
        f"Trained with train.exact: false on {number} {'process' if counts == [1] else 'processes'}: "
        "another number of processes gives other weights, and other accuracies."
    ]


def explain(scores: Scores, latency: Latency, sparsity: Sequence[Row] = ()) -> list[str]:
    """Say of the pruned, the recalibrated and the optimized model what changed against the original, and why.

    `sparsity` holds the rows of plots/sparsity.csv, by which the sentences name the layers that pruning touched.
    """
    touched = [row for row in sparsity if int(row["pruned"])]
    return [
        f"pruned: {_explain_pruning(scores['original'], scores['pruned'], touched)}",
        "recalibrated: the weights are those of the pruned model, and so are size and MACs."
        f"{_explain_latency(latency.get('recalibrated', {}))}",
        f"optimized: {_explain_file(scores['original'], scores['recalibrated'], scores['optimized'])}"
        f"{_explain_latency(latency.get('optimized', {}))}",
    ]


def _detectable(images: int) -> str:
    loss = smallest_detectable_loss(images)
    smallest = f"a loss below {100 * loss:.2g} points" if loss <= 1 else "a loss"
    return f"with {images:,} images, {smallest} cannot be told from chance"


def _batches(measured: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Select what was measured by batch size, under keys such as `batch 1`."""
    return {key.replace("_", " "): value for key, value in measured.items() if key.startswith("batch_")}


def _removed(original: Mapping[str, Any], pruned: Mapping[str, Any]) -> float:
    return 1 - pruned["parameters"] / original["parameters"]


def _zeros(pruned: Mapping[str, Any]) -> float:
    return 1 - pruned["nonzero_parameters"] / pruned["parameters"]


def _explain_pruning(original: Mapping[str, Any], pruned: Mapping[str, Any], touched: Sequence[Row]) -> str:
    """Say what share of the weights pruning removed or set to zero, and what that did to the file and to MACs."""
    if pruned["parameters"] < original["parameters"]:
        return _explain_removal(original, pruned, touched)
    if pruned["nonzero_parameters"] >= original["nonzero_parameters"]:
        return "no weight is removed or set to zero, so the file is as large and takes as many MACs as the original."
    zeros, zipped = _zeros(pruned), change_of_size(original["compressed_bytes"], pruned["compressed_bytes"])
    zeroed = f"{percent(zeros)} of the network's parameters are zero"
    if touched:
        zeroed = f"in {_shares_by_layer(touched)} are zero; that is {percent(zeros)} of the network"
    if zeros < LOW:
        return f"{zeroed}, so the file does not shrink{'' if 'smaller' in zipped else ' and hardly compresses better'}."
    return (
        f"{zeroed}. Zeros are stored and computed like other weights, so the file is as large as the original, and the "
        f"network needs as many MACs; when both are zipped, the file is {zipped}. "
        "For a smaller and faster network, set prune.method to structured."
    )


def _explain_removal(original: Mapping[str, Any], pruned: Mapping[str, Any], touched: Sequence[Row]) -> str:
    """Say what share of the weights left with removed channels, and what that did to the file and to MACs."""
    removed, saved = percent(_removed(original, pruned)), 1 - pruned["macs"] / original["macs"]
    gone = f"{removed} of the network's parameters are removed with their channels"
    if touched:
        gone = f"in {_shares_by_layer(touched)} are removed with their channels; that is {removed} of the network"
    if saved >= FEW:
        effect = f"and the network needs {percent(saved)} fewer MACs: removed channels are neither stored nor computed"
    else:
        effect = "and the network needs about as many MACs: the removed channels took few of them"
    zeros = _zeros(pruned)
    rest = f" Of the parameters that are left, {percent(zeros)} are zero, which makes only the zipped file smaller."
    return f"{gone}. The file is {_change_of_file(original, pruned)}, {effect}.{rest if zeros >= FEW else ''}"


def _explain_file(original: Mapping[str, Any], pruned: Mapping[str, Any], optimized: Mapping[str, Any]) -> str:
    """Say how large the ONNX file is, and why. Zeros are counted before quantization, which rounds weights to zero."""
    removed, zeros = _removed(original, pruned), _zeros(pruned)
    reasons = [f"{percent(removed)} of the parameters are removed"] if removed >= FEW else []
    if optimized["size_bytes"] < 0.95 * FLOAT_BYTES * optimized["parameters"]:
        reasons.append("weights are stored in fewer bits")
    smaller = original["size_bytes"] / optimized["size_bytes"] >= 1 + NOTICEABLE
    why = f", because {enumeration(reasons)}" if reasons and smaller else ""
    rest = " Zeros from pruning make only the zipped file smaller."
    return f"the file is {_change_of_file(original, optimized)}{why}.{rest if zeros >= FEW else ''}"


def _change_of_file(original: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    sizes, zipped_sizes = ((original[key], other[key]) for key in ("size_bytes", "compressed_bytes"))
    alike = change_of_size(*sizes) == change_of_size(*zipped_sizes)
    zipped = ", zipped or not" if alike else f" (when both are zipped, {change_of_size(*zipped_sizes)})"
    return f"{change_of_size(*sizes, 'the original')}{zipped}"


def _explain_latency(measured: Mapping[str, Any]) -> str:
    """Compare a model with the original exported to ONNX, which the same runtime runs; nothing where none was timed."""
    ratios = {
        name: entry["against_exported"] for name, entry in _batches(measured).items() if "against_exported" in entry
    }
    if not ratios:
        return ""
    speeds = [speed(ratio, f" at {batch}") for batch, ratio in ratios.items()]
    if all(ratio["verdict"] == "no difference" for ratio in ratios.values()):
        speeds = [speed(next(iter(ratios.values())), f" at {enumeration(list(ratios))}")]
    return f" Compared with the original in ONNX Runtime, it runs {enumeration(speeds)}."


def _shares_by_layer(touched: Sequence[Row]) -> str:
    shares = share_of_weights([float(row["sparsity"]) for row in touched])
    return f"{layers([row['layer'] for row in touched])}, {shares}"
