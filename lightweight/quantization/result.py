"""The result of quantization: the file that ships, and the tables that explain it."""

from dataclasses import dataclass
from typing import Any

from lightweight.core.files import Table
from lightweight.onnx.coverage import LayerCoverage, coverage_table, describe, describe_limits, warning
from lightweight.quantization import calibration
from lightweight.rounding import rounder
from lightweight.training import history
from lightweight.training.history import History


@dataclass(frozen=True)
class QuantizationResult:
    """Hold the file that ships, how far it is from the model on validation, and the tables that explain it.

    `logit_error` is the root mean square difference as a share of the logits', `accuracy_drop` a share of the images.
    `excluded` are the layers that `max_drop` kept in float32.
    """

    content: bytes
    logit_error: float
    accuracy_drop: float
    excluded: list[str]
    coverage: list[LayerCoverage]
    history: History
    calibration: list[dict[str, Any]]
    rounding: list[dict[str, Any]]

    def describe(self, method: str) -> str:
        """Say in lines for the log what runs on integers, what does not and why, and how far the file is off."""
        limits = describe_limits(self.coverage)
        lines = [
            warning(self.coverage),
            f"quantize  {method}  {describe(self.coverage)}",
            f"quantize  {limits}" if limits else "",
            f"quantize  logit error {self.logit_error:.3%}  val accuracy drop {self.accuracy_drop:.2%}",
        ]
        return "\n".join(filter(None, lines))

    def tables(self) -> dict[str, Table]:
        """Return the tables of layers, calibration images, rounding and training, by the names of their files."""
        return {
            "coverage": coverage_table(self.coverage),
            "calibration": (calibration.COLUMNS, self.calibration),
            "rounding": (rounder.COLUMNS, self.rounding),
            "qat": (history.COLUMNS, self.history.table()),
        }
