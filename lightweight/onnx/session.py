"""Sessions of ONNX Runtime. A file is checked before it runs: it may be damaged or come from elsewhere."""

import warnings
from pathlib import Path

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnxruntime

from lightweight.core.errors import InputError, first_line
from lightweight.core.files import read_bytes
from lightweight.onnx.bounds import bound_memory
from lightweight.onnx.structure import check_structure

MAX_BYTES_PER_IMAGE = 2**32  # of activations; ViT-B/16 takes half of it for an image of 1024 x 1024 pixels
ARENA = onnxruntime.OrtMemoryInfo(
    "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
)


def make_inference_session(content: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Make an ONNX Runtime session on the CPU whose results do not change from run to run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what fails becomes an exception
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def load_inference_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Check an ONNX file and make its session, as `make_inference_session` does; 0 threads are one per core.

    Warns of a file of others, which has no checksum. Raises InputError when the file is missing, damaged, or not what
    `export_onnx` writes.
    """
    return check_and_load(read_bytes(path), path, threads)


def check_and_load(content: bytes, path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Do the same with the bytes of an ONNX file, or those that were decoded from the file `path`."""
    try:
        if not check_structure(content, path):
            warnings.warn(f"{path} carries no checksum: damage to it cannot be noticed", stacklevel=2)
        with bound_memory(2 * MAX_BYTES_PER_IMAGE + 4 * len(content)):
            _predict_zeros(_make_bounded_session(content), images=1)
        with bound_memory(2 * MAX_BYTES_PER_IMAGE + 4 * len(content)):
            session = make_inference_session(content, threads)
            _predict_zeros(session, images=2)
        return session
    except InputError:  # of another format
        raise
    except Exception as error:  # of classes that ONNX Runtime does not name in its interface
        raise InputError(f"{path}: damaged or not an ONNX file of this project: {first_line(error)}") from None


def compute_logits(session: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    """Compute the logits of raw pixels, float32 (N, C, H, W): float32 (N, classes).

    Raises ValueError when the file fails or gives anything else, which may depend on the pixels.
    """
    try:
        (logits,) = session.run(None, {"input": images})
    except Exception as error:  # of classes that ONNX Runtime does not name in its interface
        raise ValueError(first_line(error)) from None
    if logits.dtype != np.float32 or logits.shape != (len(images), session.get_outputs()[0].shape[1]):
        raise ValueError(f"gives {logits.dtype} {logits.shape} for {len(images)} images")
    return logits


def compute_bounded_logits(session: onnxruntime.InferenceSession, image: np.ndarray) -> np.ndarray:
    """Compute the logits of one image (C, H, W) as `compute_logits` does, with at most `MAX_BYTES_PER_IMAGE` more."""
    with bound_memory(MAX_BYTES_PER_IMAGE):
        return compute_logits(session, image[None].astype(np.float32))[0]


def _make_bounded_session(content: bytes) -> onnxruntime.InferenceSession:
    """Make a session that runs every operator as it stands in the file, and fails beyond `MAX_BYTES_PER_IMAGE`."""
    arena = onnxruntime.OrtArenaCfg(MAX_BYTES_PER_IMAGE + 4 * len(content), -1, -1, -1)
    onnxruntime.create_and_register_allocator(ARENA, arena)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what fails becomes an exception
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.use_env_allocators", "1")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _predict_zeros(session: onnxruntime.InferenceSession, images: int) -> None:
    """Predict for so many black images. Raises ValueError as `compute_logits` does."""
    compute_logits(session, np.zeros((images, *session.get_inputs()[0].shape[1:]), dtype=np.float32))
