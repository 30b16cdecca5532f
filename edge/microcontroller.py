"""Write the compact network as integer-only C code for a microcontroller; check it, score it, and measure its bytes.

    make microcontroller

Reads   params.yaml, data/prepared.safetensors, models/original.safetensors, models/compact.lwz
Writes  models/microcontroller/{network.c, network.h, network_data.h}
Compilers are those that are installed: of this machine, to compare the logits of the code with those of the same
integers in Python, and of microcontrollers, to measure it.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from edge.c_compilers import CODE, HOST, TARGETS, Target, measure, run
from edge.c_source import write_header
from edge.integer_network import IntegerNetwork, make_integers
from edge.sequence import read_sequence
from lightweight.codec.reading import load_network
from lightweight.core.errors import InputError
from lightweight.core.files import write_text
from lightweight.core.params import GENERAL, load_params
from lightweight.data.dataset import Dataset, Split, split_batches
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
BATCH_SIZE = 250


def main() -> None:
    params = load_params(PARAMS, **GENERAL, quantize=QuantizeParams)
    configure_torch(params)
    sequence, dataset = read_sequence(load_network(COMPACT)), load_dataset(PREPARED)
    files = {str(path): evaluate_file(path, dataset, BATCH_SIZE, params.threads) for path in (ORIGINAL, COMPACT)}
    chosen = balanced_sample(dataset.train.labels, params.quantize.calibration_images, params.seed)
    network = make_integers(sequence, next(dataset.train.read([chosen]))[0])
    write_sources(network, FOLDER)
    logits = np.concatenate([network.logits(images) for images, _ in read(dataset.test)])
    print(f"{FOLDER}  {check(FOLDER, logits, dataset.test)}\n", flush=True)
    print(markdown(compare(files | {f"{FOLDER}, integers only": EvaluatedModel(logits.argmax(1), {})}, dataset)))
    print(markdown(pd.DataFrame([describe(target, FOLDER) for target in TARGETS])))


def read(split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Read a split in batches."""
    return split.read(split_batches(split, BATCH_SIZE))


def write_sources(network: IntegerNetwork, folder: Path) -> None:
    """Write the C code of a network: two files that are those of every network, and its numbers."""
    for name in ("network.c", "network.h"):
        write_text(folder / name, (CODE / name).read_text())
    write_text(folder / "network_data.h", write_header(network))


def check(folder: Path, logits: np.ndarray, split: Split) -> str:
    """Compare the logits of the C code with those of Python for all images of a split; say how it went.

    Raises InputError where they differ.
    """
    if not shutil.which(HOST):
        return f"not checked: this machine has no C compiler `{HOST}`"
    found = run(folder, (images.numpy() for images, _ in read(split)), logits.shape[1])
    if different := int((found != logits).any(1).sum()):
        raise InputError(
            f"{folder}: C code and Python give different logits for {different:,} of {len(found):,} images"
        )
    return f"the C code and Python give equal logits for all {len(found):,} test images"


def compare(models: dict[str, EvaluatedModel], dataset: Dataset) -> pd.DataFrame:
    """Compare the integers with the files that they come from: accuracy, and images gained and lost."""
    rows = []
    for name, model in models.items():
        scores = score(model, models[str(ORIGINAL)], dataset.test.labels.numpy())
        changes = {key: str(scores[key]) for key in ("gained", "lost")}
        rows.append({"model": name, "test accuracy": accuracy_with_interval(scores), **changes})
    return pd.DataFrame(rows)


def describe(target: Target, folder: Path) -> dict[str, str]:
    """Describe what the code takes of a microcontroller, in a row."""
    found = measure(target, folder)
    numbers = [f"{number:,}" for number in vars(found).values()] if found else [f"no {target.prefix}-gcc", "", "", ""]
    return dict(zip(("core", "flash (bytes)", "of them weights", "RAM", "stack"), [target.core, *numbers], strict=True))


if __name__ == "__main__":
    run_stage(main)
