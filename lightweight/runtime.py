"""Equal seeds and thread counts give equal bits: set before the first tensor of a stage."""

import os

import torch


def start(threads: int, seed: int) -> torch.device:
    """Fix threads, seed and algorithms of this process; returns the GPU if there is one, else the CPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
