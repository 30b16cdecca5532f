"""What decides about bits beside code and parameters: processor, system and versions, found without importing torch."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "numpy", "onnxruntime", "onnx", "onnxscript", "pillow", "safetensors")
PACKAGES += ("scikit-learn", "torch-pruning", "torchao")
SWITCHES = ("ATEN_", "CUBLAS_", "DNNL_", "MKL_", "NVIDIA_TF32", "ONEDNN_", "TORCH_ALLOW_TF32")  # of the arithmetic


EXTENSIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "avx_vnni", "asimddp", "i8mm")


def cpu_name() -> str:
    """The processor's model name."""
    return _cpu().get("model name") or platform.processor() or platform.machine()


def cpu_type() -> str:
    """What decides about rounding: name, model and instruction set, since hypervisors hide which name it is."""
    about = _cpu()
    numbers = [about[key] for key in ("cpu family", "model", "stepping") if key in about]
    return ", ".join(filter(None, [cpu_name(), "-".join(numbers), *instructions().split()]))


def instructions() -> str:
    """The vector extensions that decide about speed and rounding, such as `avx2 avx512_vnni`."""
    about = _cpu()
    flags = (about.get("flags") or about.get("Features") or "").split()
    return " ".join(name for name in EXTENSIONS if name in flags)


def hardware_description(measured: dict[str, Any]) -> str:
    """Name the processor, its instruction set and the threads of a measurement that noted `cpu` and `threads`."""
    extensions = f" ({measured['instructions']})" if measured.get("instructions") else ""
    return f"{measured['cpu']}{extensions}, {measured['threads']} thread{'s' if measured['threads'] > 1 else ''}"


def saturates() -> bool:
    """Whether sums of two products of uint8 and int8 are cut to 16 bits: x86 without VNNI (ONNX Runtime, MLAS)."""
    known = instructions().split()
    return "avx2" in known and not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(known)


def _cpu() -> dict[str, str]:
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def system() -> str:
    """The operating system and the instruction set, such as `Linux x86_64`: no name of this very machine."""
    return f"{platform.system()} {platform.machine()}"


def switches() -> dict[str, str]:
    """The environment variables by which the libraries choose other arithmetic."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(SWITCHES)}


def versions() -> dict[str, str | None]:
    """The versions of the packages that write artifacts; None for one that is not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
