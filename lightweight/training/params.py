"""Parameters of section `train` of params.yaml, and the settings of one training run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from torch import nn, optim
from torch.optim.lr_scheduler import LRScheduler

from lightweight.core.files import user_path
from lightweight.core.params import Shards
from lightweight.data.augmentation import AugmentParams
from lightweight.networks.factory import validate_name
from lightweight.training.loss import LossParams
from lightweight.training.optimizer import OptimizationParams

Schedule = Callable[[optim.Optimizer, int], LRScheduler]  # from an optimizer and its number of steps per epoch


class TrainParams(OptimizationParams, LossParams):
    """Describe section `train` of params.yaml."""

    network: Annotated[str, AfterValidator(validate_name)]
    small_stem: bool
    weights: Annotated[str, Field(min_length=1)] | None
    freeze: list[str]
    epochs: int = Field(ge=0, le=10_000)
    batch_size: int = Field(ge=2, le=65_536)
    shards: Shards
    exact: bool
    ema: float = Field(ge=0, lt=1)
    patience: int = Field(ge=0, le=10_000)
    snapshots: int = Field(ge=0)
    augment: AugmentParams

    @field_validator("epochs")
    @classmethod
    def _check_epochs(cls, value: int, info: ValidationInfo) -> int:
        if value == 0 and info.data.get("weights", "") is None:
            raise ValueError("without an epoch of training, train.weights must name the weights")
        return value

    def for_quantization(self, trains: bool) -> "TrainParams":
        """Copy the section for quantization-aware training, which works in float32 and freezes nothing.

        For a quantization method that does not train (`trains` is false), the copy names neither weights nor a teacher.
        """
        changes = {"precision": "fp32", "freeze": []} if trains else {"weights": None, "teacher": None}
        return self.model_copy(update=changes)

    def files(self, root: Path) -> list[Path]:
        """List the files that training reads, `weights` and `teacher`, which are relative to `root`."""
        paths = [user_path(root, name) for name in (self.weights, self.teacher) if name]
        return [path for path in paths if path.is_file()]


@dataclass(frozen=True)
class TrainingSettings:
    """Hold the settings of a training run: section `train`, the learning rate, its schedule, and the teacher if any.

    `lr` is the rate with which the optimizer is made; for schedules that rise first, it is the peak. `penalty` adds the
    gradient of a penalty on the weights to theirs, before each optimizer step.
    """

    params: TrainParams
    lr: float
    schedule: Schedule
    teacher: nn.Module | None = None
    penalty: Callable[[], None] | None = None
