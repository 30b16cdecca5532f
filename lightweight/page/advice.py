"""What to do next: the layer that costs most, training that had not ended, a method that would do as well for less."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightweight.evaluation.latency import slowdown_warnings
from lightweight.evaluation.statistics import SIGNIFICANCE
from lightweight.onnx.coverage import LayerCoverage, Reason, int8_share
from lightweight.reporting.phrases import percent
from lightweight.reporting.results import Latency, Scores

ENOUGH = 0.9  # share of the MACs in int8 beyond which there is little left to gain
FALLING = 0.95  # of the least validation loss before: a last epoch below it had not ended
PART = 0.1  # share of the MACs or of the bytes of a layer that is worth a sentence

Histories = Mapping[str, Sequence[Mapping[str, str]]]
SECTIONS = {
    "train": ("Training", "train.epochs"),
    "prune": ("Fine-tuning after pruning", "prune.epochs"),
    "qat": ("Training with rounding", "quantize.epochs"),
}


def advise(
    scores: Scores, latency: Latency, coverage: Sequence[LayerCoverage], histories: Histories, params: Mapping[str, Any]
) -> list[str]:
    """List what would be worth trying next, the most promising first; nothing where nothing is in sight.

    `params` are those of params.yaml by dotted key.
    """
    found = [*_slow(latency), *_unfinished(histories), *_in_float(coverage, params), *_heavy(coverage)]
    return [*found, *_useless(scores, params)]


def _slow(latency: Latency) -> list[str]:
    """Say at which batch size quantization costs time."""
    if not slowdown_warnings(latency):
        return []
    return ["8-bit integers are slower here than float32 of the same network: try quantize.method: none."]


def _unfinished(histories: Histories) -> list[str]:
    """Name the phases whose validation loss still fell in their last epoch."""
    sentences = []
    for name, (phase, key) in SECTIONS.items():
        losses = [float(row["val_loss"]) for row in histories.get(name, [])]
        if len(losses) > 2 and losses[-1] < FALLING * min(losses[:-1]):
            sentences.append(f"{phase} had not ended: validation loss still fell in its last epoch. Try more {key}.")
    return sentences


def _in_float(coverage: Sequence[LayerCoverage], params: Mapping[str, Any]) -> list[str]:
    """Name the layers in float32 that hold most MACs, where another method converts them."""
    total = sum(layer.macs for layer in coverage)
    rest = [layer for layer in coverage if layer.reason is Reason.LINEAR_ONLY]
    share = sum(layer.macs for layer in rest) / max(1, total)
    if int8_share(coverage) >= ENOUGH or share < PART:
        return []
    largest = max(rest, key=lambda layer: layer.macs)
    return [
        f"{percent(share)} of the MACs are still float32, {percent(largest.macs / total)} in {largest.name} alone: "
        f"quantize.method: static converts convolutions, too; now it is {params.get('quantize.method', 'another')}."
    ]


def _heavy(coverage: Sequence[LayerCoverage]) -> list[str]:
    """Name the layer that takes most of the bytes."""
    sizes = {layer.name: layer.weights * layer.bits for layer in coverage}
    if len(sizes) < 2 or not sum(sizes.values()):
        return []
    name = max(sizes, key=lambda name: sizes[name])
    share = sizes[name] / sum(sizes.values())
    if share < 0.5:
        return []
    return [f"{name} alone takes {percent(share)} of the weights' bytes: a larger prune.amount pays there first."]


def _useless(scores: Scores, params: Mapping[str, Any]) -> list[str]:
    """Name the steps that changed nothing that this test could measure."""
    sentences = []
    averaged = scores["averaged"]
    if params.get("swa.start") is not None and averaged["gained"] <= averaged["lost"]:
        difference = "lost accuracy" if averaged["mcnemar_p"] < SIGNIFICANCE else "gained nothing measurable"
        sentences.append(f"Averaging {difference} here: swa.start: null saves its epochs.")
    return sentences
