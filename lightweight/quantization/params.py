"""Section `quantize` of params.yaml."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from lightweight.core.params import Params

Calibration = Literal["minmax", "entropy", "percentile"]


class QuantizeParams(Params):
    """Hold section `quantize`: the method, how it is calibrated or trained, and what the file may lose."""

    method: Literal["none", "fp16", "dynamic", "static", "qat", "int4"]
    calibration: Calibration
    percentile: float = Field(gt=50, le=100)
    calibration_images: int = Field(ge=1)
    reduce_range: bool
    max_drop: float | None = Field(ge=0, le=1)
    epochs: int = Field(ge=1, le=10_000)
    lr: float = Field(gt=0, le=10)
    max_logit_error: float = Field(gt=0)
    max_accuracy_drop: float = Field(ge=0, le=1)

    @field_validator("max_accuracy_drop")
    @classmethod
    def _check_limits(cls, value: float, info: ValidationInfo) -> float:
        allowed = info.data.get("max_drop")
        if allowed is not None and allowed > value:
            raise ValueError(f"must be at least max_drop, {allowed}: a file that loses more fails the stage")
        return value

    @property
    def trains(self) -> bool:
        """Tell whether the method trains the network, so that section `train` matters."""
        return self.method == "qat"
