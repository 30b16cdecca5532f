"""Write the compact network as integer-only C code for a microcontroller; check it, score it, and measure its bytes.

    make microcontroller

Reads   params.yaml, data/prepared.safetensors, models/original.safetensors, models/compact.lwz
Writes  models/microcontroller/{network.c, network.h, network_data.h, scores.json}
Compilers are those that are installed: of this machine, and of microcontrollers, whose code QEMU executes. The logits
of all are compared with those of the same integers in Python.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from edge.c_compilers import CODE, HOST, TARGETS, Target, measure, run
from edge.c_source import write_header
from edge.integer_network import IntegerNetwork, make_integers
from edge.sequence import read_sequence
from edge.weight_coder import encode_weights
from lightweight.checkpointing.run_folder import checksum
from lightweight.codec.reading import load_network
from lightweight.core.errors import InputError
from lightweight.core.files import write_json, write_text
from lightweight.core.params import GENERAL, load_params
from lightweight.data.dataset import Split, split_batches
from lightweight.data.dataset_file import load_dataset
from lightweight.data.sampling import balanced_sample
from lightweight.evaluation.scores import EvaluatedModel, evaluate_file, score
from lightweight.execution.determinism import configure_torch
from lightweight.execution.process import run_stage
from lightweight.quantization.params import QuantizeParams
from lightweight.reporting.table import accuracy_with_interval, markdown

PARAMS, PREPARED = Path("params.yaml"), Path("data/prepared.safetensors")
ORIGINAL, COMPACT, FOLDER = (
    Path("models") / name for name in ("original.safetensors", "compact.lwz", "microcontroller")
)
BATCH_SIZE, INTEGERS = 250, f"{FOLDER}, integers only"


def main() -> None:
    params = load_params(PARAMS, **GENERAL, quantize=QuantizeParams)
    configure_torch(params)
    sequence, dataset = read_sequence(load_network(COMPACT)), load_dataset(PREPARED)
    files = {str(path): evaluate_file(path, dataset, BATCH_SIZE, params.threads) for path in (ORIGINAL, COMPACT)}
    chosen = balanced_sample(dataset.train.labels, params.quantize.calibration_images, params.seed)
    network = make_integers(sequence, next(dataset.train.read([chosen]))[0])
    write_sources(network, FOLDER)
    images = np.concatenate([images.numpy() for images, _ in read(dataset.test)])
    logits = np.concatenate([network.logits(images) for images, _ in read(dataset.test)])
    print(f"{FOLDER}  {check(HOST, FOLDER, images, logits)} on {HOST.core}\n", flush=True)
    files[INTEGERS] = EvaluatedModel(logits.argmax(1), count(network) | {"macs": files[str(COMPACT)].costs["macs"]})
    labels = dataset.test.labels.numpy()
    scores = {name: score(model, files[str(ORIGINAL)], labels) for name, model in files.items()}
    write_json(FOLDER / "scores.json", {"made_from": checksum(COMPACT), "scores": scores[INTEGERS]})
    print(markdown(pd.DataFrame([compare(name, found) for name, found in scores.items()])), flush=True)
    print(markdown(pd.DataFrame([describe(target, images, logits) for target in TARGETS])))


def read(split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Read a split in batches."""
    return split.read(split_batches(split, BATCH_SIZE))


def write_sources(network: IntegerNetwork, folder: Path) -> None:
    """Write the C code of a network: two files that are those of every network, and its numbers."""
    for name in ("network.c", "network.h"):
        write_text(folder / name, (CODE / name).read_text())
    write_text(folder / "network_data.h", write_header(network))


def count(network: IntegerNetwork) -> dict[str, Any]:
    """Count the bytes of the coded weights, and the weights."""
    weights = [layer.step.integers for layer in network.layers]
    return {
        "size_bytes": len(encode_weights(weights)),
        "parameters": sum(part.size + len(part) for part in weights),
        "nonzero_parameters": sum(int(np.count_nonzero(part)) for part in weights)
        + sum(int(np.count_nonzero(layer.biases)) for layer in network.layers),
        "int8_mac_share": 1.0,
    }


def check(target: Target, folder: Path, images: np.ndarray, logits: np.ndarray) -> str:
    """Compare the logits of the code, compiled for a core, with those of Python for all images; say how it went.

    Raises InputError where they differ.
    """
    if missing := target.missing():
        return f"not run: no {missing}"
    found = run(target, folder, images, logits.shape[1])
    if different := int((found != logits).any(1).sum()):
        raise InputError(
            f"{folder}: C code and Python give different logits for {different:,} of {len(found):,} images "
            f"on {target.core}"
        )
    return f"equal for {len(found):,}"


def compare(name: str, scores: dict[str, Any]) -> dict[str, str]:
    """Describe in a row how accurate a model is, and how many images it gained and lost."""
    changes = {key: str(scores[key]) for key in ("gained", "lost")}
    return {"model": name, "test accuracy": accuracy_with_interval(scores), **changes}


def describe(target: Target, images: np.ndarray, logits: np.ndarray) -> dict[str, str]:
    """Describe in a row what the code takes of a microcontroller, and whether its logits are those of Python."""
    found = measure(target, FOLDER)
    numbers = [f"{number:,}" for number in vars(found).values()] if found else [f"no {target.compiler}", "", "", ""]
    row = dict(zip(("core", "flash (bytes)", "of them weights", "RAM", "stack"), [target.core, *numbers], strict=True))
    return row | {"logits": check(target, FOLDER, images, logits)}


if __name__ == "__main__":
    run_stage(main)
