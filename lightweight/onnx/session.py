"""Logits of a model by the runtime that runs it: PyTorch for a network, ONNX Runtime for a file.

A file is checked before it runs: it may come from elsewhere.
"""

import json
from collections.abc import Callable
from pathlib import Path

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import AttributeProto, TensorProto
from torch import nn

from lightweight.core.errors import InputError, first_line
from lightweight.core.files import FORMAT_KEY, check_format, read_bytes
from lightweight.data.dataset import Dataset, Split, count_batches, split_batches
from lightweight.execution.ranks import largest, merge_rows, share

MAX_BYTES_PER_IMAGE = 2**32  # of activations; ViT-B/16 takes half of it for an image of 1024 x 1024 pixels
ARENA = onnxruntime.OrtMemoryInfo(
    "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
)


@torch.no_grad()
def torch_logits(model: nn.Module, dataset: Dataset, split: Split, batch_size: int) -> np.ndarray:
    """Compute the logits of `model` in evaluation mode for a split: float32 (N, classes)."""
    model.eval()
    return _map_batches(lambda images: model(dataset.normalize(images)).cpu(), split, batch_size)


def make_inference_session(content: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Make an ONNX Runtime session on the CPU whose results do not change from run to run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def load_inference_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Check an ONNX file and make its session, as `make_inference_session` does.

    Raises InputError when the file is missing, damaged, or not what `export_onnx` writes.
    """
    content = read_bytes(path)
    try:
        _check_structure(content, path)
        _predict_zeros(_make_bounded_session(content), images=1)
        session = make_inference_session(content, threads)
        _predict_zeros(session, images=2)
        return session
    except InputError:  # of another format
        raise
    except Exception as error:  # of classes that ONNX Runtime does not name in its interface
        raise InputError(f"{path}: damaged or not an ONNX file of this project: {first_line(error)}") from None


def _check_structure(content: bytes, path: Path) -> None:
    """Check that a model is one fixed graph, from (N, C, H, W) to (N, classes), with all of its weights.

    ONNX Runtime would read other files that the model names, and run loops without end. Raises ValueError.
    """
    model = onnx.load_from_string(content)
    graph = model.graph
    metadata = {item.key: item.value for item in model.metadata_props}
    check_format(path, json.loads(metadata.get(FORMAT_KEY, "0")))
    tensors = [*graph.initializer, *(item.t for node in graph.node for item in node.attribute if item.HasField("t"))]
    if any(tensor.data_location == TensorProto.EXTERNAL or tensor.external_data for tensor in tensors):
        raise ValueError("names other files")
    kinds = {item.type for node in graph.node for item in node.attribute}
    if model.functions or kinds & {AttributeProto.GRAPH, AttributeProto.GRAPHS}:
        raise ValueError("has functions or graphs within its graph")
    for values, name, rank in ((graph.input, "input", 4), (graph.output, "logits", 2)):
        shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in values}
        sizes = shapes.get(name, [])
        if len(values) != 1 or len(sizes) != rank or sizes[0] or not all(0 < size <= 2**16 for size in sizes[1:]):
            raise ValueError(f"must have one {name!r} of {rank} dimensions, the first without a size, has {shapes}")
    onnx.checker.check_model(model, full_check=True)


def _make_bounded_session(content: bytes) -> onnxruntime.InferenceSession:
    """Make a session that runs every operator as it stands in the file, and fails beyond `MAX_BYTES_PER_IMAGE`."""
    arena = onnxruntime.OrtArenaCfg(MAX_BYTES_PER_IMAGE + 4 * len(content), -1, -1, -1)
    onnxruntime.create_and_register_allocator(ARENA, arena)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.use_env_allocators", "1")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _predict_zeros(session: onnxruntime.InferenceSession, images: int) -> None:
    """Predict for so many black images. Raises ValueError for logits of another shape, or what the runtime raises."""
    shape = session.get_inputs()[0].shape[1:]
    (logits,) = session.run(None, {"input": np.zeros((images, *shape), dtype=np.float32)})
    if logits.dtype != np.float32 or logits.ndim != 2 or len(logits) != images:
        raise ValueError(f"gives {logits.dtype} {logits.shape} for {images} images")


def onnx_logits(session: onnxruntime.InferenceSession, split: Split, batch_size: int) -> np.ndarray:
    """Compute the logits of a file for the raw pixels of a split: float32 (N, classes).

    Raises InputError when the file takes images of another shape.
    """
    expected, actual = tuple(session.get_inputs()[0].shape[1:]), tuple(split.images.shape[1:])
    if expected != actual:
        raise InputError(f"The ONNX file takes images of shape {expected}, those of the data set have {actual}")

    def predict(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {"input": pixels(images)})[0])

    return _map_batches(predict, split, batch_size)


def _map_batches(function: Callable[[torch.Tensor], torch.Tensor], split: Split, batch_size: int) -> np.ndarray:
    """Compute rows from the images uint8 of every batch, shared out over the processes: (N, columns)."""
    numbers = share(count_batches(split, batch_size))
    batches = split.read(split_batches(split, batch_size, numbers))
    parts = {number: function(images) for number, (images, _) in zip(numbers, batches, strict=True)}
    rows = torch.zeros(len(split), largest(max((part.shape[1] for part in parts.values()), default=0)))
    for number, part in parts.items():
        rows[number * batch_size :][: len(part)] = part
    return merge_rows(rows).numpy()


def pixels(images: torch.Tensor) -> np.ndarray:
    """Convert images uint8 (N, C, H, W) to what an exported file takes: float32 from 0 to 255."""
    return images.cpu().numpy().astype(np.float32)
