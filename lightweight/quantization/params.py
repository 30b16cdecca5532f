"""Section `quantize` of params.yaml."""

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from lightweight.core.params import Params, name_forms
from lightweight.rounding.layer import Rounding

Calibration = Literal["minmax", "entropy", "percentile"]
ReduceRange = Literal["auto"] | bool


class QuantizeParams(Params):
    """Hold section `quantize`: method, calibration or training, what the file may lose, and its license."""

    method: Literal["none", "fp16", "dynamic", "static", "qat", "int4", "auto"]
    calibration: Calibration
    percentile: float = Field(gt=50, le=100)
    calibration_images: int = Field(ge=1)
    reduce_range: Annotated[ReduceRange, name_forms("auto, true or false")]
    rounding: Rounding
    bias_correction: bool
    exclude: list[str]
    equalize: bool
    max_drop: float | None = Field(ge=0, le=1)
    epochs: int = Field(ge=1, le=10_000)
    lr: float = Field(gt=0, le=10)
    max_logit_error: float = Field(gt=0)
    max_accuracy_drop: float = Field(ge=0, le=1)
    license: str | None

    @field_validator("max_drop")
    @classmethod
    def _check_budget(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is None and info.data.get("method") == "auto":
            raise ValueError("auto needs max_drop, the accuracy that may be lost on validation, such as 0.01")
        return value

    @field_validator("max_accuracy_drop")
    @classmethod
    def _check_limits(cls, value: float, info: ValidationInfo) -> float:
        allowed = info.data.get("max_drop")
        if allowed is not None and allowed > value:
            raise ValueError(f"must be at least max_drop, {allowed}: a file that loses more fails the stage")
        return value

    @field_validator("license")
    @classmethod
    def _check_license(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ().:/+-]{0,199}", value):
            raise ValueError("must be a name such as MIT or Apache-2.0, or null")
        return value

    @property
    def trains(self) -> bool:
        """Tell whether the method trains the network, so that section `train` matters."""
        return self.method == "qat"
