"""Layers go back to float32, the worst first, until the file loses no more accuracy than allowed.

How bad a layer is shows when it is the only one converted: the error that it makes in the logits.
"""

from collections.abc import Callable, Collection
from typing import Any

from lightweight.checkpointing.checkpointer import Checkpointer

COLUMNS = ["trial", "kind", "layer", "val_accuracy", "logit_error"]
Score = Callable[[Collection[str]], tuple[float, float]]  # of a file with so many layers in float32


class AccuracyControl:
    """`rows` are the trials: the whole file, each layer alone, then with one more layer in float32 each time."""

    def __init__(self, layers: Collection[str], score: Score, probe: Score, checkpointer: Checkpointer) -> None:
        """`score` gives accuracy in [0, 1] and logit error on validation, `probe` the error on few images."""
        self.layers, self.score, self.probe, self.checkpointer = list(layers), score, probe, checkpointer
        self.rows: list[dict[str, Any]] = []
        self.number = 0
        checkpointer.track("fallback", self)

    def search(self, least: float) -> list[str]:
        """The layers that stay in float32, so that accuracy is at least `least`; all of them if nothing helps."""
        excluded: list[str] = []
        accuracy = self._trial("all", "", self.score, excluded)["val_accuracy"]
        if accuracy >= least:
            return excluded
        alone = {name: self._trial("only", name, self.probe, set(self.layers) - {name}) for name in self.layers}
        for name in sorted(self.layers, key=lambda name: -alone[name]["logit_error"]):
            excluded.append(name)
            if self._trial("excluded", name, self.score, excluded)["val_accuracy"] >= least:
                break
        return excluded

    def _trial(self, kind: str, layer: str, score: Score, excluded: Collection[str]) -> dict[str, Any]:
        self.number += 1
        if self.number > len(self.rows):
            accuracy, error = score(excluded)
            found = {"val_accuracy": accuracy, "logit_error": error}
            self.rows.append({"trial": self.number, "kind": kind, "layer": layer} | found)
            self.checkpointer.save_if_due(f"trial {self.number + 1}")
        return self.rows[self.number - 1]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])
