"""The ladder of `quantize.method: auto`: means against a loss of accuracy, one after another, until one is enough.

Calibrators come first, then equalization, the rounding of weights, and bias correction; each is kept if the logits come
closer to those of the model. None of them costs bytes or time when the file runs, as layers in float32 would.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.checkpointing.trial_log import TrialLog

START: Mapping[str, Any] = {
    "calibration": "minmax",
    "equalize": False,
    "rounding": "nearest",
    "bias_correction": False,
}
STEPS: tuple[Mapping[str, Any], ...] = (
    {"calibration": "minmax"},
    {"calibration": "percentile"},
    {"calibration": "entropy"},
    {"equalize": True},
    {"rounding": "gptq"},
    {"bias_correction": True},
)
COLUMNS = ["step", *START, "val_accuracy", "logit_error", "bytes"]
Attempt = Callable[[Mapping[str, Any]], tuple[float, float, int]]  # accuracy, logit error and bytes by these settings


class Ladder:
    """Choose settings of section `quantize` by trials; `rows` are the trials, by `COLUMNS`."""

    def __init__(self, attempt: Attempt, checkpointer: Checkpointer, log: Callable[[str], None]) -> None:
        self.attempt, self.write_line = attempt, log
        self.log = TrialLog("step", checkpointer)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return a row per trial."""
        return self.log.rows

    def climb(self, min_accuracy: float) -> Mapping[str, Any]:
        """Return the first settings whose accuracy is at least `min_accuracy`, else those nearest to the model."""
        best, least = START, float("inf")
        for step in STEPS:
            settings = {**best, **step}
            row = self._try(settings)
            if row["val_accuracy"] >= min_accuracy:
                return settings
            if row["logit_error"] < least:
                best, least = settings, row["logit_error"]
        return best

    def _try(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        def measure() -> dict[str, Any]:
            start = time.monotonic()
            accuracy, error, size = self.attempt(settings)
            chosen = ", ".join(f"{key} {value}" for key, value in settings.items())
            seconds = time.monotonic() - start  # for the log alone: tables are the same on every machine
            self.write_line(f"quantize  {chosen}: val accuracy {accuracy:.2%}  {size:,} bytes  {seconds:.0f} s")
            return {**settings, "val_accuracy": accuracy, "logit_error": error, "bytes": size}

        return self.log.run(measure)
