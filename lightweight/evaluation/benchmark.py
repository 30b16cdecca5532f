"""The benchmark: the original in PyTorch, and the original, the pruned and the optimized model in ONNX Runtime."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from lightweight.core.machine import cpu_name, vector_extensions
from lightweight.core.memory_format import to_memory_format
from lightweight.core.params import Params
from lightweight.data.dataset import Dataset
from lightweight.evaluation.latency import compare, interleave
from lightweight.onnx.export import export_onnx
from lightweight.onnx.logits import pixels
from lightweight.onnx.session import load_inference_session, make_inference_session

PAIRS = (("recalibrated", "exported"), ("optimized", "exported"), ("optimized", "recalibrated"))  # in the same runtime


class BenchmarkParams(Params):
    batch_sizes: list[Annotated[int, Field(ge=1, le=65_536)]] = Field(min_length=1)
    rounds: int = Field(ge=10, le=100_000)


def measure_latency(
    original: nn.Module,
    recalibrated: nn.Module,
    optimized: Path,
    dataset: Dataset,
    params: BenchmarkParams,
    threads: int,
) -> dict[str, dict[str, Any]]:
    """Measure the latency of the models on test images, in turns, and compare each with the original in PyTorch.

    Returns, by model (`original`, its ONNX export `exported`, `recalibrated`, `optimized`), the processor, its
    instruction set, the number of threads, and for each batch size `batch_SIZE` what `latency.compare` says.
    `optimized` is the path of the ONNX file that ships. Raises InputError when that file is missing or damaged.
    """
    sessions = {
        "exported": make_inference_session(export_onnx(original, dataset).SerializeToString(), threads),
        "recalibrated": make_inference_session(export_onnx(recalibrated, dataset).SerializeToString(), threads),
        "optimized": load_inference_session(optimized, threads),
    }
    to_memory_format(original, torch.channels_last)
    hardware = {"cpu": cpu_name(), "instructions": vector_extensions(), "threads": threads}
    results: dict[str, dict[str, Any]] = {name: dict(hardware) for name in ("original", *sessions)}
    for size in params.batch_sizes:
        images = dataset.test.images[torch.arange(size) % len(dataset.test)]
        calls: dict[str, Callable[[], Any]] = {
            "original": torch.inference_mode()(partial(original, dataset.normalize(images)))
        }
        calls |= {name: partial(session.run, None, {"input": pixels(images)}) for name, session in sessions.items()}
        for name, summary in compare(interleave(calls, params.rounds), "original", PAIRS).items():
            results[name][f"batch_{size}"] = summary
    return results
