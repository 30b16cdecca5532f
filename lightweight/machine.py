"""What decides about bits beside code and parameters: processor, system and versions, found without importing torch."""

import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "numpy", "onnxruntime", "onnx", "onnxscript", "pillow", "safetensors", "scikit-learn")


def cpu_name() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def system() -> str:
    """The operating system and the instruction set, such as `Linux x86_64`: no name of this very machine."""
    return f"{platform.system()} {platform.machine()}"


def versions() -> dict[str, str | None]:
    """The versions of the packages that write artifacts; None for one that is not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
