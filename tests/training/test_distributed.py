"""Without `train.exact`, processes compute the gradient of a batch by DistributedDataParallel, and stay equal."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.examples import different, new, noise, state, train

JOIN = """
import os, sys, torch
import torch.distributed as dist
from pathlib import Path
number, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
torch.set_num_threads(1)
dist.init_process_group("gloo", f"file://{folder}/store", rank=number, world_size=size)
"""
GRADIENT = """
from lightweight.training.shards import DistributedGradient
from tests.training.test_distributed import backward_of, dropout_and_linear, layers_without_batchnorm, norm_and_linear
def compute(model, length):
    gradient = DistributedGradient(model)
    loss = gradient.compute(torch.arange(length), 7, backward_of(gradient.model))
    return [loss, [parameter.grad.clone() for parameter in model.parameters()], model.state_dict()]
found = [compute(layers_without_batchnorm(), length) for length in (12, 11, 3)]
found += [compute(norm_and_linear(), length) for length in (12, 3)]
model, dropped = dropout_and_linear(), []
model[1].register_forward_pre_hook(lambda module, inputs: dropped.append(inputs[0].detach()))
compute(model, 12)
torch.save([*found, dropped], folder / f"{number}.pt")
"""
UNUSED = """
from lightweight.core.errors import InputError
from lightweight.training.shards import DistributedGradient
from tests.training.test_distributed import backward_of, layers_without_batchnorm
model = layers_without_batchnorm()
model.unused = torch.nn.Parameter(torch.ones(2))
model.forward = lambda values: model[2](model[1](model[0](values)))
gradient = DistributedGradient(model)
try:
    gradient.compute(torch.arange(12), 7, backward_of(gradient.model))
except InputError as error:
    print(error, flush=True)
os._exit(0)
"""
RUNS = """
from tests.training.test_distributed import CASES, train_twice
torch.save([train_twice(**case) for case in CASES], folder / f"{number}.pt")
"""
CASES = (
    {"ema": 0.9, "clip_norm": 0.5},
    {"freeze": ["0", "1"], "precision": "bf16", "optimizer": "sgd"},
    {"teacher": True, "label_smoothing": 0.1},
)


def layers_without_batchnorm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def norm_and_linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3))


def dropout_and_linear() -> nn.Module:
    return nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 3))


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(12, 5, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


def backward_of(model: nn.Module):
    images, labels = batch()

    def backward(indices: Tensor, weight: float) -> Tensor:
        loss = F.cross_entropy(model(images[indices]), labels[indices]) * weight
        loss.backward()
        return loss.detach()

    return backward


def whole(model: nn.Module, length: int) -> tuple[Tensor, list[Tensor]]:
    """Compute loss and gradients of a batch as a whole, without this project."""
    images, labels = batch()
    loss = F.cross_entropy(model(images[:length]), labels[:length])
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters()]


def train_twice(**changes) -> dict[str, Tensor]:
    """Train a network in two runs, as iterative pruning does, on batches of which the last is too small to share."""
    teacher = new("tests.examples:bnnet", seed=1).eval() if changes.pop("teacher", False) else None
    changes |= {"batch_size": 15, "exact": False, "shards": 64}
    model = new("tests.examples:bnnet")
    rows = [row for _ in range(2) for row in train(model, noise(), range(1, 3), teacher=teacher, **changes)]
    figures = {f"row {number}.{name}": value for number, row in enumerate(rows) for name, value in vars(row).items()}
    return {**state(model), **{name: torch.tensor(value) for name, value in figures.items()}}


@pytest.fixture
def run_processes(start_python, tmp_path):
    """run_processes(code, size): what each of so many processes saves, and what the first prints."""

    def run(code: str, size: int) -> tuple[list, str]:
        folder = tmp_path / str(size)
        folder.mkdir()
        processes = [start_python(JOIN + code, number, size, folder) for number in range(size)]
        outputs = [process.communicate(timeout=100) for process in processes]
        assert [process.returncode for process in processes] == [0] * size, outputs
        files: list[Path] = sorted(folder.glob("*.pt"))
        return [torch.load(file) for file in files], outputs[0][0]

    return run


def test_gradients_loss_and_statistics_are_means_over_the_processes_and_equal_in_all(run_processes):
    (first, second), _ = run_processes(GRADIENT, 2)
    for found, length in zip(first[:3], (12, 11, 3), strict=True):
        loss, gradients = whole(layers_without_batchnorm(), length)
        torch.testing.assert_close(found[0], loss)
        torch.testing.assert_close(found[1], gradients)
    images, _ = batch()
    moved, too_few = (found[2] for found in first[3:5])
    halves = images.view(2, 6, 5)
    torch.testing.assert_close(moved["0.running_mean"], 0.1 * halves.mean((0, 1)))
    torch.testing.assert_close(moved["0.running_var"], 0.9 + 0.1 * halves.var(1).mean(0))
    torch.testing.assert_close(too_few["0.running_var"], 0.9 + 0.1 * images[:3].var(0))
    for own, other in zip(first[:-1], second[:-1], strict=True):
        assert torch.equal(own[0], other[0])
        assert all(map(torch.equal, own[1], other[1]))
        assert not different(own[2], other[2])
    for own, part in ((first, images[:6]), (second, images[6:])):
        assert torch.equal(own[-1][0], torch.where(own[-1][0] == 0, 0, 2 * part)), "its own half of the batch"
    assert not torch.equal(first[-1][0] == 0, second[-1][0] == 0), "other numbers for dropout"


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_weights_statistics_and_rows_are_equal_in_all_processes_after_training(run_processes, size):
    results, _ = run_processes(RUNS, size)
    alone = [train_twice(**case) for case in CASES]
    for number, own in enumerate(results[0]):
        for others in results[1:]:
            assert not different(own, others[number])
        assert different(own, alone[number]), "other bits than those of one process"
        frozen = {name for name in own if name.startswith(("0.weight", "1."))} if "freeze" in CASES[number] else set()
        assert not frozen & different(own, alone[number])


def test_a_network_with_parameters_beside_the_loss_is_refused_in_one_line(run_processes):
    _, output = run_processes(UNUSED, 2)
    rule = "must be true for a network with parameters that the loss does not depend on"
    assert output == f"params.yaml: train.exact = False: {rule}\n"


def test_one_process_takes_plain_steps_with_the_bits_of_one_shard():
    results = []
    for changes in ({"exact": True, "shards": 1}, {"exact": False, "shards": 16}):
        model = new("tests.examples:bnnet")
        rows = train(model, noise(), batch_size=15, **changes)
        results.append((state(model), rows))
    assert not different(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
