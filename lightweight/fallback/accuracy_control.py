"""Accuracy control: layers stay float32, the worst first, until the file loses no more accuracy than allowed.

A layer is the worse, the larger the error in the logits is when this layer alone is converted.
"""

from collections.abc import Callable, Collection
from typing import Any

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.checkpointing.trial_log import TrialLog

COLUMNS = ["trial", "kind", "layer", "val_accuracy", "logit_error"]
Score = Callable[[Collection[str]], tuple[float, float]]  # accuracy and logit error of a file without these layers


class AccuracyControl:
    """Choose the layers that stay float32; `rows` are the trials.

    The kind of a trial is `all` (every layer is converted), `only` (one layer is), or `excluded` (one more layer stays
    float32). `score` gives accuracy in [0, 1] and logit error on validation, `probe` the error on a few images.
    """

    def __init__(self, layers: Collection[str], score: Score, probe: Score, checkpointer: Checkpointer) -> None:
        self.layers, self.score, self.probe = list(layers), score, probe
        self.log = TrialLog("trial", checkpointer)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return a row per trial, by `COLUMNS`."""
        return self.log.rows

    def search(self, min_accuracy: float) -> list[str]:
        """Return the layers to exclude so that accuracy is at least `min_accuracy`; all of them if nothing helps."""
        excluded: list[str] = []
        if self._run_trial("all", "", self.score, excluded)["val_accuracy"] >= min_accuracy:
            return excluded
        errors = {layer: self._error_alone(layer) for layer in self.layers}
        for layer in sorted(self.layers, key=lambda layer: -errors[layer]):
            excluded.append(layer)
            if self._run_trial("excluded", layer, self.score, excluded)["val_accuracy"] >= min_accuracy:
                break
        return excluded

    def _error_alone(self, layer: str) -> float:
        """Measure the logit error of the file in which this layer alone is converted."""
        return self._run_trial("only", layer, self.probe, set(self.layers) - {layer})["logit_error"]

    def _run_trial(self, kind: str, layer: str, score: Score, excluded: Collection[str]) -> dict[str, Any]:
        def measure() -> dict[str, Any]:
            accuracy, error = score(excluded)
            return {"kind": kind, "layer": layer, "val_accuracy": accuracy, "logit_error": error}

        return self.log.run(measure)
