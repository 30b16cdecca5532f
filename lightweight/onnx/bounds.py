"""A bound on the memory of this process, for files of strangers: few bytes can ask for any amount of it.

ONNX Runtime folds constants and runs kernels with memory that none of its own limits covers; the kernel's limit does.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "linux":
    import resource

STATUS = Path("/proc/self/status")


@contextmanager
def bound_memory(size: int) -> Iterator[None]:
    """Let the process take at most `size` bytes of private memory within the block, beside what it holds (Linux only).

    What asks for more fails there as if the machine had no more: ONNX Runtime raises an exception, or leaves a constant
    unfolded.
    """
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (soft, hard, _private_bytes() + size) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _private_bytes() -> int:
    """Return the bytes that the kernel counts against RLIMIT_DATA."""
    (kibibytes,) = re.findall(r"^VmData:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return int(kibibytes) * 1024
