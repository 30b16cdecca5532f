"""The arithmetic of a stage: which instructions of the CPU it computes with, fixed before any library chooses them.

`portable` stands for the instruction set x86-64-v3 (AVX2 and FMA), with which every CPU that has it gives the same
bits. `native` leaves the choice to the libraries, which take AVX-512 and others where they find them.
"""

import os
import platform

from lightweight.core.errors import InputError
from lightweight.core.machine import cpu_flags
from lightweight.core.params import Arithmetic

BASELINE = ("avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")  # of x86-64-v3, as Linux names them
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # its convolutions and linear layers
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy's matrix products
}
OTHERS = (  # variables by which libraries compute otherwise; nothing may set them
    "ATEN_AVX512_256", "DNNL_DEFAULT_FPMATH_MODE", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS", "NPY_ENABLE_CPU_FEATURES", "NVIDIA_TF32_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "XNNPACK_NO_AVX",
)  # fmt: skip
FREE = {"OPENBLAS_CORETYPE"}  # needed on some machines for other programs, and in no result of `native`


def fix_instruction_set(arithmetic: Arithmetic) -> None:
    """Set the environment variables that select the instruction set of `arithmetic`, before NumPy and torch load.

    Raises InputError for a variable of the environment that says otherwise, which would be an input that DVC does not
    know, and for a CPU without x86-64-v3. On other architectures than x86-64 there is nothing to fix.
    """
    portable = PORTABLE if arithmetic == "portable" and platform.machine() == "x86_64" else {}
    for name in (*PORTABLE, *OTHERS):
        value = os.environ.get(name, portable.get(name))
        if value != portable.get(name) and not (name in FREE and not portable):
            needed = f"must be unset or {portable[name]}" if name in portable else "must be unset"
            rule = f"{needed} with arithmetic = {arithmetic!r} in params.yaml: results may not depend on it"
            raise InputError(f"environment: {name} = {value!r}: {rule}")
    missing = [name for name in BASELINE if name not in cpu_flags()] if portable else []
    if missing:
        rule = f"needs the instruction set x86-64-v3, and this CPU has no {', '.join(missing)}; native runs everywhere"
        raise InputError(f"params.yaml: arithmetic = {arithmetic!r}: {rule}")
    os.environ.update(portable)
