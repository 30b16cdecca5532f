"""Parameters of section `prune` of params.yaml, and the rules that they must follow together."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from lightweight.core.params import Params
from lightweight.pruning.amounts import Scope
from lightweight.pruning.groups import LayerType, Method
from lightweight.pruning.importance import Criterion, check_criterion

Share = Annotated[float, Field(ge=0, lt=1)]
LayerName = Annotated[  # layers of an nn.Sequential are numbers, which YAML reads as integers
    str, BeforeValidator(lambda name: str(name) if type(name) is int else name)
]

FORMS_OF_AMOUNT = "a share such as 0.7 without quotes, auto, or shares by layer such as {fc1: 0.9}"


def _form_of_amount(value: Any) -> str | None:
    """Name the form in which an amount is given, so that an error message speaks of this form alone; None for none."""
    if isinstance(value, dict):
        return "(by layer)"
    if value == "auto":
        return "(auto)"
    return "(share)" if isinstance(value, int | float) and not isinstance(value, bool) else None


class ScheduleParams(Params):
    """Describe the parameters that the pruning schedule reads."""

    scope: Scope
    epochs: int = Field(ge=0, le=10_000)
    schedule: Literal["one_shot", "iterative", "polynomial"]
    rounds: int = Field(ge=1, le=1000)
    initial_sparsity: float = Field(ge=0, lt=1)
    repair: bool

    @field_validator("schedule")
    @classmethod
    def _check_schedule(cls, value: str, info: ValidationInfo) -> str:
        if value == "polynomial" and info.data.get("epochs") == 0:
            raise ValueError("prunes while it trains: epochs must be at least 1")
        return value


class PruneParams(ScheduleParams):
    """Describe section `prune` of params.yaml."""

    method: Method
    importance: Annotated[Criterion, AfterValidator(check_criterion)]
    images: int = Field(ge=2)
    amount: Annotated[
        Annotated[Share, Tag("(share)")]
        | Annotated[Literal["auto"], Tag("(auto)")]
        | Annotated[dict[LayerName, Share], Tag("(by layer)")],
        Discriminator(_form_of_amount, "amount", f"must be {FORMS_OF_AMOUNT}"),
    ]
    max_drop: Share | None
    target_parameters: Annotated[float, Field(gt=0, lt=1)] | None
    target_macs: Annotated[float, Field(gt=0, lt=1)] | None
    trials: int = Field(ge=1, le=100)
    layers: LayerType
    exclude: list[str]
    heads: bool
    round_to: int = Field(ge=1, le=1024)
    lr: float = Field(gt=0, le=10)
    distill: bool

    @field_validator("amount")
    @classmethod
    def _check_amount(cls, value: Any, info: ValidationInfo) -> Any:
        least = info.data.get("initial_sparsity", 0)
        if info.data.get("schedule") == "polynomial" and isinstance(value, float) and 0 < value < least:
            raise ValueError(f"must be at least initial_sparsity, {least}, from which the polynomial schedule rises")
        return value

    @field_validator("max_drop", "target_parameters", "target_macs")
    @classmethod
    def _check_limits(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("amount", "auto") not in ("auto", 0):  # 0 switches all of it off
            raise ValueError("needs amount: auto, which finds shares by layer for it")
        return value

    @field_validator("target_macs")
    @classmethod
    def _check_targets(cls, value: float | None, info: ValidationInfo) -> float | None:
        targets = [info.data.get("max_drop"), info.data.get("target_parameters"), value]
        number = sum(target is not None for target in targets)
        if info.data.get("amount") == "auto" and number != 1:
            raise ValueError("amount: auto needs exactly one of max_drop, target_parameters and target_macs")
        if value is not None and info.data.get("amount") == "auto" and info.data.get("method") == "unstructured":
            raise ValueError("needs method: structured; zeros are multiplied like other weights")
        return value
