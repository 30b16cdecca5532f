"""The loss is that of Hinton, Vinyals and Dean 2015, computed here from its definition."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightweight.core.errors import InputError
from lightweight.networks.model_file import new_model, save_model
from lightweight.training.loss import batch_loss, load_teacher
from tests.examples import train_params

LOGITS, TEACHER = (torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)) * 3).double()
LABELS = torch.tensor([0, 1, 2, 3, 3, 0])


def loss(teacher: Tensor | None = TEACHER, **changes) -> float:
    return batch_loss(LOGITS, LABELS, train_params(**changes), teacher).item()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_a_teacher_the_loss_is_the_smoothed_cross_entropy(smoothing):
    targets = (1 - smoothing) * F.one_hot(LABELS, 4) + smoothing / 4
    expected = -(targets * LOGITS.log_softmax(1)).sum(1).mean().item()
    assert loss(None, label_smoothing=smoothing) == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_teacher_adds_its_divergence_at_the_temperature(weight, temperature):
    target, student = ((values / temperature).softmax(1) for values in (TEACHER, LOGITS))
    divergence = (target * (target / student).log()).sum(1).mean().item() * temperature**2
    expected = (1 - weight) * loss(None) + weight * divergence
    assert loss(teacher_weight=weight, temperature=temperature) == pytest.approx(expected)


def test_a_student_that_agrees_with_its_teacher_has_no_divergence():
    shifted = LOGITS + torch.arange(6)[:, None]  # a constant per image changes no probability
    assert loss(shifted, teacher_weight=1.0, temperature=3.0) == pytest.approx(0.0, abs=1e-12)


def test_the_gradient_keeps_its_size_at_high_temperatures():
    sizes = []
    for temperature in (20.0, 200.0):
        logits = LOGITS.clone().requires_grad_()
        batch_loss(logits, LABELS, train_params(teacher_weight=1.0, temperature=temperature), TEACHER).backward()
        sizes.append(logits.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_no_teacher_is_none(tiny_dataset, tmp_path):
    assert load_teacher(train_params(), tmp_path, tiny_dataset) is None


def test_a_teacher_is_a_model_file_relative_to_the_root_in_evaluation_mode(tiny_dataset, tmp_path):
    model_file = new_model("convnet", False, tiny_dataset)
    save_model(tmp_path / "models/teacher.safetensors", model_file)
    teacher = load_teacher(train_params(teacher="models/teacher.safetensors"), tmp_path, tiny_dataset)
    assert not teacher.training
    assert torch.equal(teacher.fc.weight, model_file.model.fc.weight)


def test_a_teacher_of_other_images_or_classes_is_refused(tiny_dataset, colour_dataset, tmp_path):
    save_model(tmp_path / "teacher.safetensors", new_model("convnet", False, colour_dataset))
    with pytest.raises(InputError) as error:
        load_teacher(train_params(teacher="teacher.safetensors"), tmp_path, tiny_dataset)
    rule = "has channels 3, the data set 1"
    assert str(error.value) == f"params.yaml: train.teacher = 'teacher.safetensors': {rule}"


def test_a_missing_teacher_is_refused(tiny_dataset, tmp_path):
    with pytest.raises(InputError, match=r"params.yaml: train.teacher = 'no.safetensors': no such file"):
        load_teacher(train_params(teacher="no.safetensors"), tmp_path, tiny_dataset)
