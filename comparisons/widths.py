"""Latency after structured pruning, by the multiple that the channels are rounded to: kernels like some widths better.

    python -m comparisons.widths [RAW_FOLDER]

Prunes resnet20 with the weights of its recipe, which come with the repository, to about 60 % of its MACs, without any
training, and times the float32 and the int8 file in turns, by one thread. RAW_FOLDER, data/raw by default, holds
CIFAR-10, of which only calibration takes images. Writes comparisons/results/widths.csv and .md. Takes minutes.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import pandas as pd
import torch

from comparisons.preparing import read_whole
from comparisons.processes import describe_machine
from lightweight.checkpointing.session import Session
from lightweight.core.files import write_csv, write_text
from lightweight.core.params import GENERAL, load_params
from lightweight.data.dataset import Dataset
from lightweight.evaluation.latency import compare_ratio
from lightweight.evaluation.timing import Call, Effort, time_in_turns
from lightweight.execution.determinism import configure_torch
from lightweight.execution.process import run_stage
from lightweight.macs import count_macs
from lightweight.networks.model_file import ModelFile, load_model
from lightweight.onnx.session import make_inference_session
from lightweight.preparation.params import PrepareParams
from lightweight.pruning.params import PruneParams
from lightweight.pruning.pruner import Pruner
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.quantizer import Quantizer
from lightweight.reporting.table import markdown

RECIPE = "resnet20-cifar10"
FIGURES, TABLE = (Path("comparisons/results") / f"widths.{kind}" for kind in ("csv", "md"))
SHARES = {1: 0.225, 4: 0.25, 8: 0.25, 16: 0.5}  # of channels that go, by multiple, for about equal MACs
METHODS = ("none", "static")
PRUNE = {"method": "structured", "importance": "l1", "epochs": 0, "layers": "conv", "repair": False}
UNTRAINED = {"max_drop": None, "max_accuracy_drop": 1.0, "max_logit_error": 10.0}  # nobody asks for its accuracy
IMAGES = 500  # of validation, which the file is compared with the model on
Key = tuple[int, str]  # the multiple, 0 for the network as it is, and the method of quantization


def main() -> None:
    raw = Path(sys.argv[1] if len(sys.argv) > 1 else "data/raw")
    sections = {"prepare": PrepareParams, "prune": PruneParams, "quantize": QuantizeParams}
    params = load_params(Path(f"recipes/{RECIPE}.yaml"), **GENERAL, **sections)
    configure_torch(params)
    prepare = params.prepare.model_copy(update={"path": str(raw / Path(params.prepare.path).name)})
    dataset = read_whole(prepare, raw, params.seed)
    dataset = replace(dataset, val=dataset.val.take(torch.arange(IMAGES)))
    dense = load_model(Path(f"recipes/weights/{RECIPE}.safetensors"), dataset)
    models = {0: dense} | {multiple: prune(dense, multiple, params.prune, dataset) for multiple in SHARES}
    macs = {multiple: count_macs(file.model, dataset.blank(1)) for multiple, file in models.items()}
    keys = [(multiple, method) for multiple in models for method in METHODS]
    files = {(multiple, method): ship(models[multiple], method, params.quantize, dataset) for multiple, method in keys}
    rows = [row | {"macs": macs[row["multiple"]]} for size in (1, 64) for row in measure(files, size, dataset)]
    write_csv(FIGURES, rows[0], rows)
    write_text(TABLE, describe(pd.read_csv(FIGURES)))


def prune(source: ModelFile, multiple: int, params: PruneParams, dataset: Dataset) -> ModelFile:
    """Remove a share of the channels of every convolution, so that a multiple of some number stays."""
    section = params.model_copy(update=PRUNE | {"amount": SHARES[multiple], "round_to": multiple})
    return Pruner(source, section, Session(dataset, seed=0), no_training).run().model_file


def ship(file: ModelFile, method: str, params: QuantizeParams, dataset: Dataset) -> bytes:
    """Make the file that ships."""
    section = params.model_copy(update=UNTRAINED | {"method": method})
    return Quantizer(file, section, Session(dataset, seed=0), no_training).run().content


def no_training(*_: Any) -> Iterator[Any]:
    """Train nothing."""
    return iter(())


def measure(files: dict[Key, bytes], size: int, dataset: Dataset) -> list[dict[str, Any]]:
    """Time all files in turns on a batch; each against the unpruned file of the same method."""
    images = dataset.val.images[:size].numpy().astype(np.float32)
    effort = Effort(rounds=30, precision=0.05, threads=1)

    def opener(content: bytes) -> Call:
        session = make_inference_session(content, effort.threads)
        return lambda: session.run(None, {"input": images})

    pairs = [(key, (0, key[1])) for key in files if key[0]]
    samples = time_in_turns({key: lambda key=key: opener(files[key]) for key in files}, pairs, effort)
    return [
        {"multiple": key[0], "method": key[1], "batch": size, "ms": float(np.median(samples[key]))}
        | compare_ratio(samples[key], samples[0, key[1]], effort.precision)
        | describe_machine()
        for key in files
    ]


def describe(figures: pd.DataFrame) -> str:
    """Describe the figures in a table: a row per multiple, the speedups with their intervals."""
    dense = figures[figures.multiple == 0].macs.iloc[0]
    rows = []
    for multiple, of_multiple in figures.groupby("multiple"):
        row = {
            "channels that stay": f"a multiple of {multiple}" if multiple else "all",
            "MACs": f"{of_multiple.macs.iloc[0] / dense:.0%}",
        }
        for _, one in of_multiple.iterrows():
            name = f"{'int8' if one.method == 'static' else 'float32'}, batch {one.batch}"
            row[name] = f"{one.ms:.2f} ms"
            if multiple:
                row[name] += f", {one.speedup:.2f} times [{one.speedup_low:.2f}, {one.speedup_high:.2f}]"
        rows.append(row)
    machine = figures.iloc[0]
    return (
        f"`{RECIPE}` after structured pruning without training; ONNX Runtime, 1 thread, {machine.cpu}, {machine.date}. "
        "Times as fast as the unpruned file of the same type, with the interval of the ratio.\n\n"
        f"{markdown(pd.DataFrame(rows))}\n"
    )


if __name__ == "__main__":
    run_stage(main)
