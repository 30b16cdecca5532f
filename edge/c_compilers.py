"""Compile the C code of a network for this machine and for microcontrollers; run it, in an emulator, and measure it."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lightweight.core.errors import InputError, first_line

CODE = Path(__file__).parent / "c"
STRICT = ("-std=c99", "-Os", "-Wall", "-Wextra", "-Werror")
ALONE = ("-ffreestanding", "-nostdlib", "-static")
SMALLEST = ("-Wl,-e,classify", "-ffunction-sections", "-Wl,--gc-sections")


@dataclass(frozen=True)
class Target:
    """Name a core, its compiler and the options for it, and the emulator that runs its programs, none for this machine.

    QEMU's user mode starts no program on a Cortex-M (7.2 aborts), but its own Arm core executes the same instructions.
    """

    core: str
    compiler: str
    options: tuple[str, ...] = ()
    emulator: str = ""

    def missing(self) -> str | None:
        """Name the program that is not installed and that running code needs; None where there is all of it."""
        return next((name for name in (self.compiler, self.emulator) if name and not shutil.which(name)), None)


HOST = Target("this machine", "cc")
TARGETS = (
    Target("Arm Cortex-M0+", "arm-none-eabi-gcc", ("-mcpu=cortex-m0plus", "-mthumb"), "qemu-arm"),
    Target("Arm Cortex-M4", "arm-none-eabi-gcc", ("-mcpu=cortex-m4", "-mthumb"), "qemu-arm"),
    Target("RISC-V RV32EC", "riscv64-unknown-elf-gcc", ("-march=rv32ec", "-mabi=ilp32e"), "qemu-riscv32"),
    Target("RISC-V RV32IMC", "riscv64-unknown-elf-gcc", ("-march=rv32imc", "-mabi=ilp32"), "qemu-riscv32"),
)


@dataclass(frozen=True)
class Footprint:
    """Hold the bytes that a network takes on a microcontroller: `weights` are those of `flash` that are coded."""

    flash: int
    weights: int
    ram: int
    stack: int


def run(target: Target, folder: Path, images: np.ndarray, classes: int) -> np.ndarray:
    """Compute the logits, int32 (N, classes), of images, uint8 (N, ...), by the code of a folder on a core."""
    sizes = (f"-DIMAGE_BYTES={images[0].size}", f"-DNUMBERS={classes}", f"-I{folder}")
    sources = [str(folder / "network.c"), str(CODE / "check.c")]
    if target.emulator:
        sources += [*ALONE, str(CODE / "linux.S"), "-lgcc"]
    with TemporaryDirectory() as scratch:
        program = str(Path(scratch) / "check")
        _compile(target, *sizes, *sources, "-o", program)
        command = [target.emulator, program] if target.emulator else [program]
        done = subprocess.run(command, input=images.tobytes(), stdout=subprocess.PIPE, check=True)
    return np.frombuffer(done.stdout, np.int32).reshape(-1, classes)


def measure(target: Target, folder: Path) -> Footprint | None:
    """Measure the code of a folder with its numbers, at -Os; None where the compiler is not installed.

    `stack` is the sum of the frames of all functions, which is more than any calls of one another take.
    """
    source = str(folder / "network.c")
    if not shutil.which(target.compiler):
        return None
    with TemporaryDirectory() as scratch:
        program = Path(scratch) / "network"
        _compile(target, *ALONE, *SMALLEST, source, "-lgcc", "-o", str(program))
        part = ("-ffreestanding", "-fstack-usage", "-c", source, "-o", str(program.with_suffix(".o")))
        _compile(target, *part)
        frames = program.with_suffix(".su").read_text().splitlines()
        size = target.compiler.replace("gcc", "size")
        sizes = subprocess.run([size, program], stdout=subprocess.PIPE, text=True, check=True)
    text, data, zeros = map(int, sizes.stdout.splitlines()[1].split()[:3])
    weights = re.search(r"WEIGHTS\[\] = {(.*?)}", (folder / "network_data.h").read_text(), re.DOTALL)
    assert weights
    stack = sum(int(line.split("\t")[1]) for line in frames)
    return Footprint(text + data, weights[1].count(","), data + zeros, stack)


def _compile(target: Target, *arguments: str) -> None:
    """Compile for a core. Raises InputError with the first line of the compiler's complaint."""
    command = [target.compiler, *STRICT, *target.options, *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise InputError(f"{target.compiler}: {first_line(RuntimeError(done.stderr))}")
