"""Compile the C code of a network: for this machine, to run it, and for microcontrollers, to measure it."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lightweight.core.errors import InputError, first_line

CODE = Path(__file__).parent / "c"
HOST = "cc"
STRICT = ("-std=c99", "-Os", "-Wall", "-Wextra", "-Werror")
ALONE = ("-ffreestanding", "-nostdlib", "-Wl,-e,classify", "-ffunction-sections", "-Wl,--gc-sections")


@dataclass(frozen=True)
class Target:
    """Name a microcontroller's core, its compiler by GCC's prefix, and the options of this core."""

    core: str
    prefix: str
    options: tuple[str, ...]


TARGETS = (
    Target("Arm Cortex-M0+", "arm-none-eabi", ("-mcpu=cortex-m0plus", "-mthumb")),
    Target("Arm Cortex-M4", "arm-none-eabi", ("-mcpu=cortex-m4", "-mthumb")),
    Target("RISC-V RV32EC", "riscv64-unknown-elf", ("-march=rv32ec", "-mabi=ilp32e")),
    Target("RISC-V RV32IMC", "riscv64-unknown-elf", ("-march=rv32imc", "-mabi=ilp32")),
)


@dataclass(frozen=True)
class Footprint:
    """Hold the bytes that a network takes on a microcontroller: `weights` are those of `flash` that are coded."""

    flash: int
    weights: int
    ram: int
    stack: int


def run(folder: Path, batches: Iterable[np.ndarray], classes: int) -> np.ndarray:
    """Compute the logits of batches of images, uint8 (N, ...), by the code of a folder on this machine: int32."""
    images = np.concatenate(list(batches))
    with TemporaryDirectory() as scratch:
        program = str(Path(scratch) / "check")
        sizes = (f"-DIMAGE_BYTES={images[0].size}", f"-DNUMBERS={classes}")
        _compile(HOST, *sizes, f"-I{folder}", str(folder / "network.c"), str(CODE / "check.c"), "-o", program)
        done = subprocess.run([program], input=images.tobytes(), stdout=subprocess.PIPE, check=True)
    return np.frombuffer(done.stdout, np.int32).reshape(-1, classes)


def measure(target: Target, folder: Path) -> Footprint | None:
    """Measure the code of a folder with its numbers, at -Os; None where the compiler is not installed.

    `stack` is the sum of the frames of all functions, which is more than any calls of one another take.
    """
    compiler, source = f"{target.prefix}-gcc", str(folder / "network.c")
    if not shutil.which(compiler):
        return None
    with TemporaryDirectory() as scratch:
        program = Path(scratch) / "network"
        _compile(compiler, *target.options, *ALONE, source, "-lgcc", "-o", str(program))
        part = ("-ffreestanding", "-fstack-usage", "-c", source, "-o", str(program.with_suffix(".o")))
        _compile(compiler, *target.options, *part)
        frames = program.with_suffix(".su").read_text().splitlines()
        sizes = subprocess.run([f"{target.prefix}-size", program], stdout=subprocess.PIPE, text=True, check=True)
    text, data, zeros = map(int, sizes.stdout.splitlines()[1].split()[:3])
    weights = re.search(r"WEIGHTS\[\] = {(.*?)}", (folder / "network_data.h").read_text(), re.DOTALL)
    assert weights
    stack = sum(int(line.split("\t")[1]) for line in frames)
    return Footprint(text + data, weights[1].count(","), data + zeros, stack)


def _compile(compiler: str, *arguments: str) -> None:
    """Run a compiler. Raises InputError with the first line of its complaint."""
    done = subprocess.run([compiler, *STRICT, *arguments], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise InputError(f"{compiler}: {first_line(RuntimeError(done.stderr))}")
