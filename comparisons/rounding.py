"""Weights rounded to nearest and by GPTQ, in 8 and in 4 bits, of networks that are trained and not trained further.

    python -m comparisons.rounding [RAW_FOLDER]

Takes the weights of recipes: those that come with the repository in recipes/weights, and those that `make weights` has
copied to RAW_FOLDER, data/raw by default, where the images lie. Writes comparisons/results/rounding.csv, and
rounding.md; networks that are there are not measured again.
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from comparisons.preparing import read_whole
from comparisons.processes import describe_machine
from lightweight.checkpointing.session import Session
from lightweight.core.files import read_csv, write_csv, write_text
from lightweight.core.params import GENERAL, load_params
from lightweight.evaluation.scores import EvaluatedModel, score
from lightweight.execution.determinism import configure_torch
from lightweight.execution.process import run_stage
from lightweight.networks.model_file import load_model
from lightweight.onnx.logits import onnx_logits
from lightweight.onnx.session import make_inference_session
from lightweight.preparation.params import PrepareParams
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.quantizer import Quantizer
from lightweight.reporting.table import accuracy_with_interval, markdown

RECIPES = ("resnet20-cifar10", "tiny-mnist", "lenet5-mnist", "keras-mnist", "mnist")
FIGURES, TABLE = (Path("comparisons/results") / f"rounding.{kind}" for kind in ("csv", "md"))
TRACKED = Path("recipes/weights")
UNLIMITED = {"max_drop": None, "max_logit_error": 10.0, "max_accuracy_drop": 1.0, "license": None}
BATCH_SIZE = 256


@dataclass(frozen=True)
class Case:
    """Describe how a file is made: a method of `quantize`, and how its weights become integers."""

    method: str
    reduce_range: str | bool = "auto"
    rounding: str = "nearest"
    bias_correction: bool = False


CASES = (
    Case("none"),
    Case("static", reduce_range=True),
    Case("static"),
    Case("static", rounding="gptq", bias_correction=True),
    Case("int4"),
    Case("int4", bias_correction=True),
    Case("int4", rounding="gptq"),
    Case("int4", rounding="gptq", bias_correction=True),
)
COLUMNS = [
    "network", "method", "reduce_range", "rounding", "bias_correction", "bytes", "accuracy", "accuracy_low",
    "accuracy_high", "gained", "lost", "mcnemar_p", "logit_error", "seconds", "cpu", "date",
]  # fmt: skip


def main() -> None:
    raw = Path(sys.argv[1] if len(sys.argv) > 1 else "data/raw")
    rows: list[dict[str, Any]] = read_csv(FIGURES) if FIGURES.exists() else []
    for name in RECIPES:
        weights = [path for folder in (TRACKED, raw) if (path := folder / f"{name}.safetensors").exists()]
        if not weights or any(row["network"] == name for row in rows):
            print(
                f"{name}  {'was measured before' if weights else 'has no weights here: see make weights'}", flush=True
            )
            continue
        rows += [{key: row[key] for key in COLUMNS} for row in measure(name, weights[0], raw)]
        write_csv(FIGURES, COLUMNS, rows)
    write_text(TABLE, describe(pd.read_csv(FIGURES)))


def measure(name: str, weights: Path, raw: Path) -> list[dict[str, Any]]:
    """Make the files of all cases of a recipe's weights and score them on all test images: a row for each."""
    params = load_params(Path(f"recipes/{name}.yaml"), **GENERAL, prepare=PrepareParams, quantize=QuantizeParams)
    configure_torch(params)
    dataset = read_whole(params.prepare, raw, params.seed)
    source, labels = load_model(weights, dataset), dataset.test.labels.numpy()
    about = {key: value for key, value in describe_machine().items() if key in COLUMNS}
    rows, reference = [], None
    for case in CASES:
        quantize = QuantizeParams(**params.quantize.model_dump() | asdict(case) | UNLIMITED)
        start = time.perf_counter()
        result = Quantizer(source, quantize, Session(dataset, params.seed, params.threads), train_nothing).run()
        seconds = round(time.perf_counter() - start, 1)
        logits = onnx_logits(make_inference_session(result.content, params.threads), dataset.test, BATCH_SIZE)
        file = EvaluatedModel(logits.argmax(1), {"bytes": len(result.content)})
        reference = reference or file  # the first is float32
        row = {"network": name, **asdict(case), **score(file, reference, labels)}
        rows.append(row | about | {"logit_error": result.logit_error, "seconds": seconds})
        print(f"{name}  {case.method}  {case.rounding}  {row['accuracy']:.2%}", flush=True)
    return rows


def train_nothing(*arguments: Any) -> list[Any]:
    """Train no epoch; no method here asks for one."""
    return []


def describe(figures: pd.DataFrame) -> str:
    """Describe the files of every network in a table in Markdown."""
    parts = [
        f"Measured on {', '.join(figures['cpu'].unique())}, {figures['date'].max()}; seconds while other work ran.\n"
    ]
    for name, own in figures.groupby("network", sort=False):
        full = own.iloc[0]
        table = pd.DataFrame(
            {
                "method": own["method"].replace("none", "float32"),
                "reduce_range": own["reduce_range"].astype(str).str.lower().where(own["method"] == "static", ""),
                "rounding": own["rounding"].where(own["method"] != "none", ""),
                "bias correction": own["bias_correction"].map({True: "yes", False: ""}),
                "bytes": own["bytes"].map("{:,}".format),
                "of float32": (own["bytes"] / full["bytes"]).map("{:.3f}".format),
                "test accuracy": own.apply(accuracy_with_interval, axis=1),
                "points lost": (100 * (full["accuracy"] - own["accuracy"])).map("{:.2f}".format),
                "p": own["mcnemar_p"].map("{:.2g}".format),
                "logit error": own["logit_error"].map("{:.1%}".format),
                "seconds": own["seconds"].map("{:.0f}".format),
            }
        )
        parts.append(f"## {name}\n\n{markdown(table)}")
    return "\n".join(parts)


if __name__ == "__main__":
    run_stage(main)
