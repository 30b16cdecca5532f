"""The optimizer step: optimizers, learning rate schedules, gradient clipping and mixed precision."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from lightweight.core.errors import InputError, bad_param, first_line
from lightweight.core.params import Params

OPTIMIZERS = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW}
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class OptimizationParams(Params):
    """Describe the parameters of section `train` that the optimizer and its schedule read."""

    optimizer: Literal["sgd", "adam", "adamw"]
    momentum: float = Field(ge=0, lt=1)
    lr: float = Field(gt=0, le=10)
    weight_decay: float = Field(ge=0, lt=1)
    decay_all: bool
    clip_norm: float = Field(ge=0)
    precision: Literal["fp32", "bf16", "fp16"]
    schedule: Literal["constant", "step", "cosine", "onecycle"]
    step_epochs: int = Field(ge=1, le=10_000)
    step_factor: float = Field(gt=0, le=1)


def make_optimizer(model: nn.Module, params: OptimizationParams, lr: float) -> optim.Optimizer:
    """Make the optimizer of all parameters that are not frozen, with learning rate `lr`.

    It is SGD with momentum, Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019). Weight decay is decoupled
    in AdamW and part of the gradient in the others. Unless `decay_all`, parameters of one dimension have no weight
    decay: biases, and the weights of normalisation layers.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained}]
    if not params.decay_all:
        undecayed = [parameter for parameter in trained if parameter.ndim < 2]
        decayed = [parameter for parameter in trained if parameter.ndim >= 2]
        groups = [{"params": decayed}, {"params": undecayed, "weight_decay": 0.0}]
    options: dict[str, Any] = {"fused": True}
    if params.optimizer == "sgd":  # fused SGD takes an overflow of fp16 into its momentum
        options = {"fused": params.precision != "fp16", "momentum": params.momentum}
    groups = [group for group in groups if group["params"]]
    return OPTIMIZERS[params.optimizer](groups, lr, weight_decay=params.weight_decay, **options)


def make_schedule(
    name: str, params: OptimizationParams, epochs: int, optimizer: optim.Optimizer, steps: int
) -> LRScheduler:
    """Make the learning rate schedule for `epochs` of `steps` optimizer steps each.

    The highest rate is that with which `optimizer` was made. The schedule must be stepped after every optimizer step.
    """
    match name:
        case "constant":
            return ConstantLR(optimizer, factor=1.0)
        case "step":
            return StepLR(optimizer, params.step_epochs * steps, params.step_factor)
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=epochs * steps)
        case "onecycle":  # Smith and Topin 2018
            peak = optimizer.param_groups[0]["lr"]
            return OneCycleLR(optimizer, peak, total_steps=epochs * steps, cycle_momentum=False)
        case _:
            raise AssertionError(name)


class Stepper:
    """Take optimizer steps with gradient clipping (Pascanu et al. 2013) and mixed precision (Micikevicius et al. 2018).

    In mixed precision the weights stay float32, and convolutions and matrix products compute in bf16 or fp16. Raises
    InputError for fp16 without a GPU.
    """

    def __init__(self, optimizer: optim.Optimizer, params: OptimizationParams, device: torch.device) -> None:
        if params.precision == "fp16" and device.type != "cuda":
            raise bad_param("train.precision", "fp16", "needs a CUDA GPU; fp32 and bf16 run everywhere")
        self.optimizer, self.clip_norm = optimizer, params.clip_norm
        self.dtype, self.device = PRECISIONS.get(params.precision), device
        self.scaler = torch.amp.GradScaler(device.type, enabled=params.precision == "fp16")

    def autocast(self) -> AbstractContextManager:
        """Return the context in which forward passes compute in the chosen precision."""
        return torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, in mixed precision times a scale, to that of the parameters.

        Raises InputError when an operation of the network has no deterministic implementation.
        """
        try:
            self.scaler.scale(loss).backward()
        except RuntimeError as error:  # on a GPU, for example from the adaptive pooling in VGG and AlexNet
            if "deterministic" not in str(error):
                raise
            raise InputError(f"The network cannot be trained reproducibly here: {first_line(error)}") from None

    def step(self) -> None:
        """Update the parameters by their gradients, and set these to zero."""
        if self.clip_norm:
            self.scaler.unscale_(self.optimizer)
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for (
            parameter,
            values,
        ) in self.optimizer.state.items():  # fused optimizers expect the memory layout of the parameter
            for name, value in values.items():
                if value.shape == parameter.shape:
                    values[name] = torch.empty_like(parameter).copy_(value)
