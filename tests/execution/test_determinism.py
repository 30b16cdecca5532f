import os
from types import SimpleNamespace

import pytest
import torch

from lightweight.core.errors import InputError
from lightweight.execution.determinism import configure_torch


def general(**changes: object) -> SimpleNamespace:
    return SimpleNamespace(**{"seed": 0, "threads": 1, "arithmetic": "native"} | changes)


pytestmark = pytest.mark.usefixtures("unchanged_process")


@pytest.mark.parametrize("threads", [1, 2])
def test_the_process_uses_the_given_number_of_threads(threads):
    configure_torch(general(threads=threads))
    assert torch.get_num_threads() == threads


def test_random_numbers_depend_on_the_seed_alone():
    drawn = []
    for seed in (0, 0, 2**32 - 1):
        configure_torch(general(seed=seed))
        drawn.append(torch.rand(8))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_algorithms_that_are_not_deterministic_are_refused():
    torch.use_deterministic_algorithms(False)
    configure_torch(general())
    with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
        torch.nn.functional.max_unpool2d(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int64), 2)


def test_the_device_is_the_gpu_exactly_where_there_is_one(monkeypatch):
    for available, kind in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert configure_torch(general()).type == kind


def test_cublas_gets_a_deterministic_workspace_unless_one_is_set(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    configure_torch(general())
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    configure_torch(general())
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize(
    ("name", "value", "threads"),
    [
        ("OMP_THREAD_LIMIT", "1", 2),
        ("OMP_THREAD_LIMIT", " 3 ", 4),
        ("OMP_DYNAMIC", "true", 2),
        ("OMP_DYNAMIC", "TRUE", 8),
    ],
)
def test_a_variable_with_which_threads_would_wait_for_each_other_without_end_is_refused(
    monkeypatch, name, value, threads
):
    monkeypatch.setenv(name, value)
    message = f"^environment: {name} = '{value.strip()}': must be unset or .* with threads = {threads} in params.yaml"
    with pytest.raises(InputError, match=message):
        configure_torch(general(threads=threads))
    configure_torch(general(threads=1))


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_THREAD_LIMIT", "2"), ("OMP_THREAD_LIMIT", "all"), ("OMP_DYNAMIC", "false")]
)
def test_one_that_leaves_every_thread_is_none_of_our_business(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    configure_torch(general(threads=2))
