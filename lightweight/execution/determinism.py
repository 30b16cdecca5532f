"""Settings of torch under which equal seeds and thread counts give equal bits, and the folders of the user's files."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import torch

from lightweight.core.errors import InputError
from lightweight.execution.linear import use_portable_linear


def configure_torch(params: SimpleNamespace) -> torch.device:
    """Set seed, threads and deterministic algorithms of torch, and return the GPU if there is one, else the CPU.

    `params` has the keys of `GENERAL`: `seed`, `threads` and `arithmetic`. Raises InputError for a variable of the
    environment with which several threads would hang.
    """
    check_openmp(params.threads)
    if params.arithmetic == "portable":
        use_portable_linear()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32 on a GPU, too
    torch.set_num_threads(params.threads)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms imports the compiler, for 2 s
    torch.manual_seed(params.seed)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_openmp(threads: int) -> None:
    """Raise InputError where the environment gives oneDNN fewer OpenMP threads than it waits for, without end."""
    limit, dynamic = os.environ.get("OMP_THREAD_LIMIT", "").strip(), os.environ.get("OMP_DYNAMIC", "").strip()
    rule = f"with threads = {threads} in params.yaml, or training would hang"
    if limit.isdecimal() and int(limit) < threads:
        raise InputError(f"environment: OMP_THREAD_LIMIT = {limit!r}: must be unset or at least {threads} {rule}")
    if dynamic.lower() == "true" and threads > 1:
        raise InputError(f"environment: OMP_DYNAMIC = {dynamic!r}: must be unset or false {rule}")


def derive_seed(*numbers: int) -> int:
    """Derive a seed below 2^63 from a tuple of integers, such as a seed, a step and a shard; equal tuples give one."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def project_root() -> Path:
    """Return the root of the user's working tree, which is not the current folder in an experiment of DVC."""
    return Path(os.environ.get("DVC_ROOT", ""))


def work_folder() -> Path:
    """Return the folder of interrupted runs: `$LIGHTWEIGHT_WORK`, else `work` in the user's working tree."""
    return Path(os.environ.get("LIGHTWEIGHT_WORK") or project_root() / "work").expanduser()
