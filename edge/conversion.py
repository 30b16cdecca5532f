"""What the converters share: the model of the pipeline, the gate that its file must pass, and the table beside ONNX.

Every converted file takes what the ONNX file takes, one image at a time: float32 (1, C, H, W), values 0 to 255, and
gives float32 logits (1, classes).
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lightweight.core.determinism import configure_torch
from lightweight.core.errors import InputError, bad_param, first_line
from lightweight.core.files import write_bytes
from lightweight.core.machine import cpu_name, vector_extensions
from lightweight.core.params import Seed, Threads, load_params
from lightweight.dataset import Dataset, Split, load_dataset
from lightweight.evaluation.latency import interleave, summarize
from lightweight.evaluation.scores import EvaluatedModel, evaluate_file, score
from lightweight.networks.model_file import load_model
from lightweight.onnx.export import FromPixels
from lightweight.onnx.session import load_session, pixels, torch_logits
from lightweight.quantization.calibration import balanced
from lightweight.quantization.parity import check_parity
from lightweight.quantization.quantizer import BATCH_SIZE, QuantizeParams
from lightweight.reporting.table import accuracy, markdown

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
ORIGINAL = Path("models/original.safetensors")
RECALIBRATED = Path("models/recalibrated.safetensors")
OPTIMIZED = Path("models/optimized.onnx")
METHODS = ("none", "dynamic", "static")
ROUNDS = 30
Predict = Callable[[np.ndarray], np.ndarray]  # of one image


@dataclass(frozen=True)
class Source:
    """The model to convert, and all that decides how."""

    model: nn.Module
    dataset: Dataset
    params: QuantizeParams
    threads: int
    seed: int
    others: dict[Path, EvaluatedModel]  # what the file is compared with

    @property
    def network(self) -> nn.Module:
        """From raw pixels to logits."""
        return FromPixels(self.model, self.dataset).eval()

    @property
    def blank(self) -> tuple[Tensor]:
        """One image, from which the network is captured."""
        return (torch.zeros(1, self.dataset.channels, self.dataset.image_size, self.dataset.image_size),)

    @property
    def images(self) -> np.ndarray:
        """The calibration images of `quantize`, float32 (N, C, H, W)."""
        split = self.dataset.train
        return pixels(split.images[balanced(split.labels, self.params.calibration_images, self.seed)])


def load() -> Source:
    """Raises InputError for what the converters do not know, and where the pipeline has not run."""
    params = load_params(PARAMS, seed=Seed, threads=Threads, quantize=QuantizeParams)
    if params.quantize.method not in METHODS:
        rule = f"files for edge devices are made by {', '.join(METHODS)}"
        raise bad_param("quantize.method", params.quantize.method, rule)
    if params.quantize.method == "static" and params.quantize.calibration != "minmax":
        raise bad_param("quantize.calibration", params.quantize.calibration, "files for edge devices know minmax only")
    if params.quantize.max_drop is not None:
        raise bad_param("quantize.max_drop", params.quantize.max_drop, "must be null for files for edge devices")
    configure_torch(params.threads, params.seed)
    dataset = load_dataset(PREPARED)
    model = load_model(RECALIBRATED, dataset).model
    others = {path: evaluate_file(path, dataset, BATCH_SIZE, params.threads) for path in (ORIGINAL, OPTIMIZED)}
    return Source(model, dataset, params.quantize, params.threads, params.seed, others)


def deliver(path: Path, convert: Callable[[Source], bytes], opened: Callable[[bytes, int], Predict]) -> None:
    """Convert the model of the pipeline; `opened` makes of the file, and a number of threads, what predicts."""
    source = load()
    content = convert(source)
    publish(path, content, opened(content, source.threads), source)


def publish(path: Path, content: bytes, predict: Predict, source: Source) -> None:
    """Check it against the model on validation, write it, score it on the test images, print a table."""
    dataset, val = source.dataset, source.dataset.val
    expected = torch_logits(source.model, dataset, val, BATCH_SIZE)
    error, drop = check_parity(expected, logits(predict, val), val, source.params)
    write_bytes(path, content)
    print(f"{path}  {source.params.method}  logit error {error:.3%}  val accuracy drop {drop:.2%}", flush=True)
    converted = EvaluatedModel(logits(predict, dataset.test).argmax(1), {"size_bytes": len(content)})
    image = pixels(dataset.test.images[:1])
    session = load_session(OPTIMIZED, source.threads)
    calls = {"onnx": lambda: session.run(None, {"input": image}), "edge": lambda: predict(image)}
    samples = interleave(calls, ROUNDS)
    rows = [["file", "test accuracy", "MB", "gained", "lost", "batch 1 (ms)", "times as fast"]]
    for file, variant in {**source.others, path: converted}.items():
        name = {OPTIMIZED: "onnx", path: "edge"}.get(file)
        scores = score(variant, source.others[ORIGINAL], dataset.test.labels.numpy())
        row = [str(file), accuracy(scores), f"{scores['size_bytes'] / 1e6:.3f}", str(scores["gained"])]
        found = summarize(samples[name], samples["onnx"]) if name else {}
        speed = [f"{found['latency_ms']:.3f}", f"{found['speedup']:.2f}"] if found else ["", ""]
        rows.append([*row, str(scores["lost"]), *speed])
    print(f"\n{markdown(rows)}\n{len(dataset.test):,} test images, {cpu_name()} ({vector_extensions()})")


@contextmanager
def converter(name: str) -> Iterator[None]:
    """A converter at work: quiet about every step and what it misses on this machine; its failures are InputErrors."""
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
    """float32 (N, classes), image by image."""
    return np.concatenate([predict(pixels(image)) for image in split.images.split(1)])
