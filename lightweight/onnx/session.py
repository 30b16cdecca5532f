"""Sessions of ONNX Runtime. A file is checked before it runs: it may be damaged or come from elsewhere."""

import warnings
from pathlib import Path

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnxruntime

from lightweight.core.errors import InputError, first_line
from lightweight.core.files import read_bytes
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
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def load_inference_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Check an ONNX file and make its session, as `make_inference_session` does; 0 threads are one per core.

    Warns of a file of others, which has no checksum. Raises InputError when the file is missing, damaged, or not what
    `export_onnx` writes.
    """
    content = read_bytes(path)
    try:
        if not check_structure(content, path):
            warnings.warn(f"{path} carries no checksum: damage to it cannot be noticed", stacklevel=2)
        _predict_zeros(_make_bounded_session(content), images=1)
        session = make_inference_session(content, threads)
        _predict_zeros(session, images=2)
        return session
    except InputError:  # of another format
        raise
    except Exception as error:  # of classes that ONNX Runtime does not name in its interface
        raise InputError(f"{path}: damaged or not an ONNX file of this project: {first_line(error)}") from None


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
    """Predict for so many black images. Raises ValueError for logits of another shape, or what the runtime raises."""
    shape = session.get_inputs()[0].shape[1:]
    (logits,) = session.run(None, {"input": np.zeros((images, *shape), dtype=np.float32)})
    if logits.dtype != np.float32 or logits.ndim != 2 or len(logits) != images:
        raise ValueError(f"gives {logits.dtype} {logits.shape} for {images} images")
