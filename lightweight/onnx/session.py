"""Predictions come from the runtime that will run the file: PyTorch for weights, ONNX Runtime for what ships."""

import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default, and read once: while it is imported

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import AttributeProto, TensorProto
from torch import nn

from lightweight.core.errors import InputError, first_line
from lightweight.core.files import read_bytes
from lightweight.dataset import Dataset, Split

MEMORY = 2**32  # bytes that one image may take on its way through a file; ViT-B/16 takes half of it for 1024 pixels
ARENA = onnxruntime.OrtMemoryInfo(
    "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
)


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
    """`open_session` of a file. Raises InputError when it is missing, damaged, or not what `export` writes."""
    content = read_bytes(path)
    try:
        _check(content)
        _try(_bounded_session(content), images=1)
        session = open_session(content, threads)
        _try(session, images=2)
        return session
    except Exception as error:  # of classes that ONNX Runtime does not name in its interface
        raise InputError(f"{path}: damaged or not an ONNX file of this project: {first_line(error)}") from None


def _check(content: bytes) -> None:
    """Raises ValueError unless it is one fixed graph, from (N, C, H, W) to (N, classes), with all of its weights.

    The runtime would read other files that it names, and run loops without end.
    """
    model = onnx.load_from_string(content)
    graph = model.graph
    tensors = [*graph.initializer, *(item.t for node in graph.node for item in node.attribute if item.HasField("t"))]
    if any(tensor.data_location == TensorProto.EXTERNAL or tensor.external_data for tensor in tensors):
        raise ValueError("names other files")
    kinds = {item.type for node in graph.node for item in node.attribute}
    if model.functions or kinds & {AttributeProto.GRAPH, AttributeProto.GRAPHS}:
        raise ValueError("has functions or graphs within its graph")
    for item, name, rank in ((graph.input, "input", 4), (graph.output, "logits", 2)):
        shapes = {found.name: [size.dim_value for size in found.type.tensor_type.shape.dim] for found in item}
        sizes = shapes.get(name, [])
        if len(item) != 1 or len(sizes) != rank or sizes[0] or not all(0 < size <= 2**16 for size in sizes[1:]):
            raise ValueError(f"must have one {name!r} of {rank} dimensions, the first without a size, has {shapes}")
    onnx.checker.check_model(model, full_check=True)


def _bounded_session(content: bytes) -> onnxruntime.InferenceSession:
    """One that runs every operator as it stands in the file, and fails where it takes more than `MEMORY`."""
    arena = onnxruntime.OrtArenaCfg(MEMORY + 4 * len(content), -1, -1, -1)
    onnxruntime.create_and_register_allocator(ARENA, arena)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.use_env_allocators", "1")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _try(session: onnxruntime.InferenceSession, images: int) -> None:
    """Predict for so many images. Raises ValueError, or whatever the runtime raises."""
    shape = session.get_inputs()[0].shape[1:]
    (logits,) = session.run(None, {"input": np.zeros((images, *shape), dtype=np.float32)})
    if logits.dtype != np.float32 or logits.ndim != 2 or len(logits) != images:
        raise ValueError(f"gives {logits.dtype} {logits.shape} for {images} images")


def onnx_logits(session: onnxruntime.InferenceSession, split: Split, batch_size: int) -> np.ndarray:
    """float32 (N, classes) from raw pixels. Raises InputError when the file takes other images."""
    taken, given = tuple(session.get_inputs()[0].shape[1:]), tuple(split.images.shape[1:])
    if taken != given:
        raise InputError(f"the ONNX file takes images of shape {taken}, those of the data set have {given}")
    return np.concatenate([session.run(None, {"input": pixels(part)})[0] for part in split.images.split(batch_size)])


def pixels(images: torch.Tensor) -> np.ndarray:
    """uint8 (N, C, H, W) as the float32 0 to 255 that an exported file takes."""
    return images.cpu().numpy().astype(np.float32)
