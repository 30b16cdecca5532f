"""The instruction set of a stage is the one that params.yaml names, or the stage ends in one line."""

import os
import subprocess
import sys

import pytest

from lightweight.core.errors import InputError
from lightweight.execution import arithmetic
from lightweight.execution.arithmetic import OTHERS, PORTABLE, fix_instruction_set

CHILD = """
from lightweight.execution.arithmetic import fix_instruction_set
fix_instruction_set({!r})
import torch
print(torch.backends.cpu.get_cpu_capability())
"""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in (*PORTABLE, *OTHERS, "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is restored, whatever the test sets
        monkeypatch.delenv(name)
    monkeypatch.setattr(arithmetic.platform, "machine", lambda: "x86_64")


def test_portable_arithmetic_computes_with_avx2_on_every_cpu():
    found = subprocess.run([sys.executable, "-c", CHILD.format("portable")], capture_output=True, text=True, check=True)
    assert found.stdout == "AVX2\n"


def test_portable_sets_the_variables_and_accepts_them_as_set():
    fix_instruction_set("portable")
    assert {name: os.environ[name] for name in PORTABLE} == PORTABLE
    fix_instruction_set("portable")


def test_native_sets_nothing():
    fix_instruction_set("native")
    assert not {*PORTABLE, *OTHERS} & os.environ.keys()


@pytest.mark.parametrize("name", [*PORTABLE, *OTHERS])
@pytest.mark.parametrize("kind", ["portable", "native"])
def test_a_variable_that_says_otherwise_is_refused_by_name(monkeypatch, name, kind):
    monkeypatch.setenv(name, "other")
    if (name, kind) == ("OPENBLAS_CORETYPE", "native"):  # which no result depends on
        fix_instruction_set(kind)
        return
    with pytest.raises(InputError, match=f"^environment: {name} = 'other': must be unset.* arithmetic = '{kind}'"):
        fix_instruction_set(kind)


def test_a_cpu_below_the_baseline_is_refused_by_what_it_lacks(monkeypatch):
    monkeypatch.setattr(arithmetic, "cpu_flags", lambda: ["avx2", "bmi1", "bmi2", "f16c", "movbe"])
    with pytest.raises(InputError, match=r"arithmetic = 'portable': .*x86-64-v3, and this CPU has no fma;"):
        fix_instruction_set("portable")
    fix_instruction_set("native")


def test_another_architecture_has_nothing_to_fix(monkeypatch):
    monkeypatch.setattr(arithmetic.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(arithmetic, "cpu_flags", list)
    fix_instruction_set("portable")
    assert not PORTABLE.keys() & os.environ.keys()
