"""The process that a stage runs in: equal seeds and thread counts give equal bits."""

import os
from pathlib import Path

import torch


def configure_torch(threads: int, seed: int) -> torch.device:
    """Fix threads, seed and algorithms of this process; returns the GPU if there is one, else the CPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32 on a GPU, too
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms imports the compiler, for 2 s
    torch.manual_seed(seed)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def project_root() -> Path:
    """The user's own working tree, which untracked files are relative to: DVC's copies for experiments hold none."""
    return Path(os.environ.get("DVC_ROOT", ""))
