"""Predictions come from the runtime that will run the file: PyTorch for weights, ONNX Runtime for what ships."""

import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default, and read once: while it is imported

import numpy as np
import onnxruntime
import torch
from torch import nn

from lightweight.data import Dataset, Split
from lightweight.errors import InputError
from lightweight.files import read_bytes


@torch.no_grad()
def torch_logits(model: nn.Module, dataset: Dataset, split: Split, batch_size: int) -> np.ndarray:
    """float32 (N, classes) of `model` in evaluation mode."""
    model.eval()
    return np.concatenate([model(images).cpu().numpy() for images, _ in dataset.batches(split, batch_size)])


def open_session(content: bytes, threads: int) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU whose results do not change from run to run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def load_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """`open_session` of a file. Raises InputError when it is missing or damaged."""
    content = read_bytes(path)
    try:
        return open_session(content, threads)
    except Exception as error:  # of classes that ONNX Runtime does not name in its interface
        raise InputError(f"{path}: damaged or not an ONNX file: {str(error).splitlines()[0]}") from None


def onnx_logits(session: onnxruntime.InferenceSession, split: Split, batch_size: int) -> np.ndarray:
    """float32 (N, classes) from raw pixels."""
    return np.concatenate([session.run(None, {"input": pixels(part)})[0] for part in split.images.split(batch_size)])


def pixels(images: torch.Tensor) -> np.ndarray:
    """uint8 (N, C, H, W) as the float32 0 to 255 that an exported file takes."""
    return images.cpu().numpy().astype(np.float32)
