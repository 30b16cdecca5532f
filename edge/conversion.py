"""Common parts of the converters: the pipeline's model, the check that its file must pass, the table beside ONNX.

Every converted file takes what the ONNX file takes, one image at a time: float32 (1, C, H, W), values 0 to 255, and
gives float32 logits (1, classes).
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lightweight.core.errors import InputError, bad_param, first_line
from lightweight.core.files import write_bytes
from lightweight.core.machine import cpu_name, vector_extensions
from lightweight.core.params import GENERAL, load_params
from lightweight.data.dataset import Dataset, Split, split_batches
from lightweight.data.dataset_file import load_dataset
from lightweight.data.sampling import balanced_sample
from lightweight.evaluation.latency import compare_ratio, summarize
from lightweight.evaluation.scores import EvaluatedModel, evaluate_file, score
from lightweight.evaluation.timing import Effort, time_in_turns
from lightweight.execution.determinism import configure_torch
from lightweight.networks.model_file import load_model
from lightweight.onnx.export import FromPixels
from lightweight.onnx.logits import pixels, torch_logits
from lightweight.onnx.session import load_inference_session
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.parity import check_parity
from lightweight.quantization.quantizer import BATCH_SIZE
from lightweight.reporting.table import accuracy_with_interval, markdown, speedup_with_interval

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
ORIGINAL = Path("models/original.safetensors")
RECALIBRATED = Path("models/recalibrated.safetensors")
OPTIMIZED = Path("models/optimized.onnx")
METHODS = ("none", "dynamic", "static")
ROUNDS, PRECISION = 30, 0.05  # of the measurement of latency
Predict = Callable[[np.ndarray], np.ndarray]  # float32 (1, C, H, W) to logits (1, classes)


@dataclass(frozen=True)
class Source:
    """Hold the model to convert, what decides how, and the scored files that the converted one is compared with."""

    model: nn.Module
    dataset: Dataset
    params: QuantizeParams
    threads: int
    seed: int
    references: dict[Path, EvaluatedModel]

    @property
    def network(self) -> nn.Module:
        """Build the network from raw pixels to logits."""
        return FromPixels(self.model, self.dataset).eval()

    @property
    def blank(self) -> tuple[Tensor]:
        """Make one image, from which the network is captured."""
        return (torch.zeros(1, self.dataset.channels, self.dataset.image_size, self.dataset.image_size),)

    @property
    def images(self) -> np.ndarray:
        """Select the calibration images of the stage `quantize`, float32 (N, C, H, W)."""
        split = self.dataset.train
        return pixels(split.images[balanced_sample(split.labels, self.params.calibration_images, self.seed)])


def load_source() -> Source:
    """Load the model of the pipeline with the parameters of its quantization.

    Raises InputError for parameters that the converters cannot follow, and where the pipeline has not run.
    """
    params = load_params(PARAMS, **GENERAL, quantize=QuantizeParams)
    if params.quantize.method not in METHODS:
        rule = f"files for edge devices are made by {', '.join(METHODS)}"
        raise bad_param("quantize.method", params.quantize.method, rule)
    if params.quantize.method == "static" and params.quantize.calibration != "minmax":
        raise bad_param("quantize.calibration", params.quantize.calibration, "files for edge devices know minmax only")
    if params.quantize.max_drop is not None:
        raise bad_param("quantize.max_drop", params.quantize.max_drop, "must be null for files for edge devices")
    configure_torch(params)
    dataset = load_dataset(PREPARED)
    model = load_model(RECALIBRATED, dataset).model
    references = {path: evaluate_file(path, dataset, BATCH_SIZE, params.threads) for path in (ORIGINAL, OPTIMIZED)}
    return Source(model, dataset, params.quantize, params.threads, params.seed, references)


def run_converter(path: Path, convert: Callable[[Source], bytes], open_model: Callable[[bytes, int], Predict]) -> None:
    """Convert the model of the pipeline and publish the file; `open_model` opens its bytes on so many threads."""
    source = load_source()
    content = convert(source)
    publish(path, content, open_model(content, source.threads), source)


def publish(path: Path, content: bytes, predict: Predict, source: Source) -> None:
    """Check a file against the model on validation, write it, and print how it compares on the test images.

    Raises InputError when the file strays from the model by more than `quantize` allows.
    """
    val = source.dataset.val
    expected = torch_logits(source.model, source.dataset, val, BATCH_SIZE)
    error, drop = check_parity(expected, logits(predict, val), val, source.params)
    write_bytes(path, content)
    print(f"{path}  {source.params.method}  logit error {error:.3%}  val accuracy drop {drop:.2%}", flush=True)
    print(f"\n{markdown(compare(path, len(content), predict, source))}")
    print(f"{len(source.dataset.test):,} test images, {cpu_name()} ({vector_extensions()})")


def compare(path: Path, size_bytes: int, predict: Predict, source: Source) -> pd.DataFrame:
    """Compare the converted file with the original and the ONNX file: accuracy, size, and speed with the ONNX file."""
    dataset = source.dataset
    converted = EvaluatedModel(logits(predict, dataset.test).argmax(1), {"size_bytes": size_bytes})
    image = pixels(dataset.test.images[:1])
    session = load_inference_session(OPTIMIZED, source.threads)
    turns = {OPTIMIZED: lambda: partial(session.run, None, {"input": image}), path: lambda: partial(predict, image)}
    samples = time_in_turns(turns, [(path, OPTIMIZED)], Effort(ROUNDS, PRECISION, source.threads))
    rows = []
    for file, model in {**source.references, path: converted}.items():
        scores = score(model, source.references[ORIGINAL], dataset.test.labels.numpy())
        row = {
            "file": str(file),
            "test accuracy": accuracy_with_interval(scores),
            "MB": f"{scores['size_bytes'] / 1e6:.3f}",
            "gained": str(scores["gained"]),
            "lost": str(scores["lost"]),
        }
        if file in samples:
            ratio = compare_ratio(samples[file], samples[OPTIMIZED], PRECISION)
            row |= {"batch 1 (ms)": f"{summarize(samples[file])['latency_ms']:.3f}"}
            row |= {"times as fast": speedup_with_interval(ratio)}
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


@contextmanager
def converter(name: str) -> Iterator[None]:
    """Run a converter, quiet about its steps and about what it misses on this machine; its failures are InputErrors."""
    logging.disable()
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    except ModuleNotFoundError as error:
        raise InputError(f"{error}: `make {name}` installs it, in an environment of its own") from None
    except Exception as error:  # of classes that the converters do not name in their interfaces
        raise InputError(f"{name} cannot convert the network: {first_line(error)}") from None
    finally:
        logging.disable(logging.NOTSET)


def logits(predict: Predict, split: Split) -> np.ndarray:
    """Predict the logits of a split image by image: float32 (N, classes)."""
    return np.concatenate([predict(pixels(image)) for image, _ in split.read(split_batches(split, 1))])
