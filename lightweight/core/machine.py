"""Properties of this machine that results or timings depend on: processor, system, versions; torch is not imported."""

import os
import platform
import re
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch", "torchvision", "timm", "numpy", "onnxruntime", "onnx", "onnxscript", "pillow", "safetensors",
    "scikit-learn", "torch-pruning", "torchao",
)  # fmt: skip
CPUINFO, CPUS = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu")
EXTENSIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "avx_vnni", "asimddp", "i8mm")


def cpu_name() -> str:
    """Return the processor's model name."""
    return _read_cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_type() -> str:
    """Describe the processor by name, model numbers and instruction set: hypervisors give several one name."""
    cpu = _read_cpuinfo()
    numbers = [cpu[key] for key in ("cpu family", "model", "stepping") if key in cpu]
    return ", ".join(filter(None, [cpu_name(), "-".join(numbers), *vector_extensions().split()]))


def vector_extensions() -> str:
    """List the instruction sets that decide about speed and rounding, such as `avx2 avx512_vnni`."""
    return " ".join(name for name in EXTENSIONS if name in cpu_flags())


def cpu_flags() -> list[str]:
    """List the instruction sets and other features of the processor, as the kernel names them."""
    cpu = _read_cpuinfo()
    return (cpu.get("flags") or cpu.get("Features") or "").split()


def cpu_frequency() -> float | None:
    """Return the frequency of the fastest core in MHz, now; None where the system does not tell it."""
    files = CPUS.glob("cpu*/cpufreq/scaling_cur_freq")
    try:
        told = [int(file.read_text()) / 1000 for file in files]
        told = told or [float(mhz) for mhz in re.findall(r"^cpu MHz\s*: ([\d.]+)$", CPUINFO.read_text(), re.MULTILINE)]
    except OSError:
        return None
    return max(told, default=None)


def load_average() -> float:
    """Return how many processes ran or waited for a core, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def hardware_description(measured: dict[str, Any]) -> str:
    """Describe the processor, its instruction sets and the threads of a measurement by its `cpu` and `threads`."""
    extensions = f" ({measured['instructions']})" if measured.get("instructions") else ""
    noun = "thread" if measured["threads"] == 1 else "threads"
    return f"{measured['cpu']}{extensions}, {measured['threads']} {noun}"


def int8_saturates() -> bool:
    """Tell whether sums of two products of uint8 and int8 are cut to 16 bits: x86 without VNNI (ONNX Runtime, MLAS)."""
    extensions = set(vector_extensions().split())
    return "avx2" in extensions and not {"avx512_vnni", "avx_vnni", "amx_int8"} & extensions


def total_memory() -> int:
    """Return the bytes of memory of this machine, no more than a container's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no control groups, or no limit
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def _read_cpuinfo() -> dict[str, str]:
    """Read what the kernel says about the first processor; nothing on systems other than Linux."""
    try:
        first = CPUINFO.read_text().partition("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def platform_name() -> str:
    """Return the operating system and the architecture, such as `Linux x86_64`, without the name of the host."""
    return f"{platform.system()} {platform.machine()}"


def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages that write artifacts; None for one that is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions
