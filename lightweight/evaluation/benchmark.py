"""The benchmark: the original in PyTorch, and the original, the pruned and the optimized model in ONNX Runtime."""

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from lightweight.core.files import read_bytes
from lightweight.core.machine import cpu_frequency, cpu_name, load_average, vector_extensions
from lightweight.core.memory_format import to_memory_format
from lightweight.core.params import Params
from lightweight.data.dataset import Dataset
from lightweight.evaluation.latency import compare
from lightweight.evaluation.memory import peak_memory
from lightweight.evaluation.timing import Call, Effort, time_in_turns
from lightweight.onnx.export import export_onnx
from lightweight.onnx.logits import pixels
from lightweight.onnx.session import load_inference_session, make_inference_session

REFERENCE = "original"
PAIRS = (("recalibrated", "exported"), ("optimized", "exported"), ("optimized", "recalibrated"))  # in the same runtime


class BenchmarkParams(Params):
    batch_sizes: list[Annotated[int, Field(ge=1, le=65_536)]] = Field(min_length=1)
    rounds: int = Field(ge=12, le=100_000)  # halves of fewer have no interval
    precision: float = Field(ge=0.001, le=1)


def measure_latency(
    original: nn.Module,
    recalibrated: nn.Module,
    optimized: Path,
    dataset: Dataset,
    params: BenchmarkParams,
    threads: int,
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Measure the latency of the models on test images, in turns, and compare each with the original in PyTorch.

    Returns first, by model (`original`, its ONNX export `exported`, `recalibrated`, `optimized`), the processor, its
    instruction set, the number of threads, load and frequency, and for each batch size `batch_SIZE` what
    `latency.compare` says, with the peak memory of the models in ONNX Runtime; then a row per turn: model, batch size,
    round and milliseconds. `optimized` is the path of the ONNX file that ships. Raises InputError when that file is
    missing or damaged.
    """
    load_inference_session(optimized, threads)  # which checks it
    files = {"exported": export_onnx(original, dataset), "recalibrated": export_onnx(recalibrated, dataset)}
    contents = {name: model.SerializeToString() for name, model in files.items()} | {"optimized": read_bytes(optimized)}
    to_memory_format(original, torch.channels_last)
    names, effort = (REFERENCE, *contents), Effort(params.rounds, params.precision, threads)
    load, measured, turns = load_average(), {}, []
    for size in params.batch_sizes:
        images = dataset.test.images[torch.arange(size) % len(dataset.test)]
        openers = {REFERENCE: partial(open_network, original, dataset.normalize(images))}
        openers |= {name: partial(open_file, content, images, threads) for name, content in contents.items()}
        samples = time_in_turns(openers, [*((name, REFERENCE) for name in contents), *PAIRS], effort)
        measured[f"batch_{size}"] = compare(samples, REFERENCE, PAIRS, params.precision)
        for name, content in contents.items():
            measured[f"batch_{size}"][name]["peak_memory_bytes"] = peak_memory(content, pixels(images), threads)
        turns += turn_rows(samples, size)
    about = {
        "cpu": cpu_name(),
        "instructions": vector_extensions(),
        "threads": threads,
        "cpu_mhz": cpu_frequency(),
        "load_before": load,
        "load_after": load_average(),
    }
    latency = {name: about | {batch: summaries[name] for batch, summaries in measured.items()} for name in names}
    return latency, turns


def turn_rows(samples: Mapping[str, np.ndarray], size: int) -> list[dict[str, Any]]:
    """List every turn of every model at a batch size, with milliseconds (rounds,) by model to six digits."""
    return [
        {"model": name, "batch": size, "round": number, "milliseconds": f"{value:.6g}"}
        for name, values in samples.items()
        for number, value in enumerate(values, start=1)
    ]


def open_network(network: nn.Module, images: Tensor) -> Call:
    """Copy a network, so that its weights lie elsewhere; returns what computes the logits of normalized images."""
    return torch.inference_mode()(partial(deepcopy(network), images))


def open_file(content: bytes, images: Tensor, threads: int) -> Call:
    """Open an ONNX file in ONNX Runtime; returns what computes the logits of images uint8."""
    return partial(make_inference_session(content, threads).run, None, {"input": pixels(images)})
