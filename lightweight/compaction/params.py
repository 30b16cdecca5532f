"""Parameters of section `compact` of params.yaml."""

from typing import Literal

from pydantic import Field

from lightweight.core.params import Params
from lightweight.training.params import TrainParams


class CompactParams(Params):
    """Describe section `compact` of params.yaml."""

    enabled: bool
    method: Literal["trained", "layerwise"]
    rate: float = Field(gt=0, le=1)
    step: float = Field(gt=0, le=10)
    epochs: int = Field(ge=1, le=10_000)
    lr: float = Field(gt=0, le=10)
    distill: bool
    images: int = Field(ge=1)
    scale_steps: Literal[4, 8, 16, 32]
    bias_bits: int = Field(ge=2, le=16)

    def training(self, params: TrainParams) -> TrainParams:
        """Copy section `train` for training with rounded weights: in float32, without weight decay; bits cost instead.

        Where nothing is trained, the copy names no teacher.
        """
        changes = {"precision": "fp32", "weight_decay": 0.0, "weights": None}
        trains = self.enabled and self.method == "trained"
        return params.model_copy(update=changes if trains else changes | {"teacher": None})
