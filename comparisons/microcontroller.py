"""Flash and RAM of the C code of recipes' compact networks, beside those of BitNetMCU.

    python -m comparisons.microcontroller

Takes the compact networks of the recipes from DVC's cache, where `make recipe` has left them, and runs `make
microcontroller` on each. Writes comparisons/results/microcontroller.md.
"""

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightweight.core.errors import InputError
from lightweight.core.files import write_text
from lightweight.execution.process import run_stage
from tools.recipe.experiment import run_module
from tools.recipe.recipe import read_recipe

RECIPES = ("tiny-compact",)
FILES = ("data/prepared.safetensors", "data/prepared", "models/original.safetensors", "models/compact.lwz")
TABLE = Path("comparisons/results/microcontroller.md")
HEAD = """# On a microcontroller

Integer-only C code at `-Os`, with its entropy-coded weights, by GCC {version}. RAM is static; the stack is the sum of
all functions' frames. Written by `python -m comparisons.microcontroller`, {date}.

BitNetMCU, which is made for this, publishes 11.0 KiB of weights alone, beside its code, at 99.53 to 99.55 % in single
runs (99.46 % when two were repeated), and 9.3 KiB at 99.44 %, on an RV32EC core (documentation of its CNN).
"""


def main() -> None:
    parts = [HEAD.format(version=compiler_version(), date=datetime.now(UTC).date().isoformat())]
    for name in RECIPES:
        recipe = read_recipe(name)
        with recipe.experiment.artifacts(FILES) as folder:
            parts.append(f"## {name}\n\n{convert(folder, recipe.params)}")
        write_text(TABLE, "\n".join(parts))
    print(TABLE.read_text())


def convert(folder: Path, params: dict[str, Any]) -> str:
    """Write the C code of the compact network in a folder; return the tables. Raises InputError where that fails."""
    done = run_module("edge.microcontroller", folder, params, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError(f"{folder.name}: edge.microcontroller failed, see above")
    return str(done.stdout)


def compiler_version() -> str:
    """Return the version of the compiler for Arm. Raises InputError where it is not installed."""
    try:
        done = subprocess.run(["arm-none-eabi-gcc", "-dumpversion"], stdout=subprocess.PIPE, text=True, check=True)
    except FileNotFoundError:
        raise InputError("arm-none-eabi-gcc: not installed; Debian's gcc-arm-none-eabi brings it") from None
    return done.stdout.strip()


if __name__ == "__main__":
    run_stage(main)
