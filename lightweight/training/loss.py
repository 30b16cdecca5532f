"""The training loss: cross-entropy with the labels and, with a teacher, the divergence from its predictions.

Knowledge distillation is after Hinton, Vinyals and Dean 2015, label smoothing after Szegedy et al. 2016.
"""

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lightweight.core.errors import bad_param
from lightweight.core.files import user_path
from lightweight.core.params import Params
from lightweight.data.dataset import Dataset
from lightweight.networks.model_file import load_model


class LossParams(Params):
    """Describe the parameters of section `train` that the loss reads."""

    label_smoothing: float = Field(ge=0, lt=1)
    teacher: Annotated[str, Field(min_length=1)] | None
    temperature: float = Field(gt=0)
    teacher_weight: float = Field(ge=0, le=1)


def load_teacher(params: LossParams, root: Path, dataset: Dataset) -> nn.Module | None:
    """Load the teacher of knowledge distillation from `params.teacher`, a model file relative to `root`.

    Returns the network on the device of the data, or None when no teacher is named. Raises InputError when the file is
    no model of this project, or when its network takes other images or gives other classes.
    """
    if params.teacher is None:
        return None
    path = user_path(root, params.teacher)
    if not path.is_file():
        raise bad_param("train.teacher", params.teacher, "no such file")
    teacher = load_model(path)
    needed = {"channels": dataset.channels, "image_size": dataset.input_size, "num_classes": dataset.num_classes}
    for name, value in needed.items():
        if teacher.arguments[name] != value:
            rule = f"has {name} {teacher.arguments[name]}, the data set {value}"
            raise bad_param("train.teacher", params.teacher, rule)
    return teacher.model.to(dataset.mean.device)


def batch_loss(logits: Tensor, labels: Tensor, params: LossParams, teacher: Tensor | None) -> Tensor:
    """Compute the mean loss of a batch from logits (N, classes), labels (N,) and the teacher's logits, if any.

    With a teacher this is `(1 - w) CE(labels) + w T^2 KL(teacher || student)`, both distributions at temperature T. The
    factor T^2 keeps the size of the gradients.
    """
    loss = F.cross_entropy(logits, labels, label_smoothing=params.label_smoothing)
    if teacher is None:
        return loss
    student = F.log_softmax(logits / params.temperature, dim=1)
    target = teacher / params.temperature
    divergences = F.softmax(target, dim=1) * (F.log_softmax(target, dim=1) - student)  # kl_div would take MKL's exp
    divergence = divergences.sum() / len(logits) * params.temperature**2
    return torch.lerp(loss, divergence, params.teacher_weight)
