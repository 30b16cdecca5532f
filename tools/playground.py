"""Build the page that runs the original and the optimized model side by side in a browser; `make playground` serves it.

    python -m tools.playground

Reads   params.yaml, data/prepared.safetensors, models/original.safetensors, models/optimized.onnx, plots/models.csv,
        playground/ with ONNX Runtime Web in its node_modules
Writes  playground/build/, which works from any server of static files
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lightweight.core.files import read_bytes, write_bytes, write_json
from lightweight.core.yaml import read_yaml
from lightweight.data.dataset import Dataset
from lightweight.data.dataset_file import load_dataset
from lightweight.execution.process import run_stage
from lightweight.networks.model_file import load_model
from lightweight.onnx.export import export_onnx
from lightweight.reporting.results import Scores, read_scores

SOURCES = Path("playground")
BUILD = SOURCES / "build"
PAGE = ("index.html", "style.css", "playground.js")
RUNTIME = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
SAMPLES = 12  # test images, as even over the classes as may be


@dataclass(frozen=True)
class Playground:
    """Hold what the page shows: both ONNX files by name, the data set, scores by model, and how they are called."""

    files: Mapping[str, bytes]
    dataset: Dataset
    scores: Scores
    network: str
    name: str

    def describe(self) -> dict[str, Any]:
        """Make models.json, which the page reads first."""
        return {
            "network": self.network,
            "dataset": self.name,
            "classes": list(self.dataset.classes),
            "channels": self.dataset.channels,
            "side": self.dataset.image_size,
            "samples": [
                {"file": f"samples/{number}.png", "label": self.dataset.classes[int(self.dataset.test.labels[number])]}
                for number in self.samples()
            ],
            **{
                name: {"file": f"{name}.onnx", "bytes": len(content), "accuracy": self.scores[name]["accuracy"]}
                for name, content in self.files.items()
            },
        }

    def samples(self) -> list[int]:
        """Choose test images: the first of every class, then the second, and so on."""
        labels = self.dataset.test.labels.tolist()
        seen: dict[int, int] = {}
        ranks = []
        for number, label in enumerate(labels):
            seen[label] = seen.get(label, 0) + 1
            ranks.append((seen[label], label, number))
        return [number for _, _, number in sorted(ranks)[:SAMPLES]]


def build(playground: Playground, sources: Path, folder: Path) -> None:
    """Write the page into a folder. Raises InputError where ONNX Runtime Web is not installed."""
    for name in PAGE:
        write_bytes(folder / name, read_bytes(sources / name))
    for name in RUNTIME:
        write_bytes(folder / name, read_bytes(sources / "node_modules/onnxruntime-web/dist" / name))
    for name, content in playground.files.items():
        write_bytes(folder / f"{name}.onnx", content)
    numbers = playground.samples()
    images = next(playground.dataset.test.read([torch.tensor(numbers)]))[0]
    for number, image in zip(numbers, images, strict=True):
        write_bytes(folder / f"samples/{number}.png", as_png(image))
    write_json(folder / "models.json", playground.describe())


def as_png(image: torch.Tensor) -> bytes:
    """Write an image uint8 (C, H, W) of one or three channels as PNG."""
    array = image.numpy()
    content = io.BytesIO()
    Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)).save(content, format="PNG")
    return content.getvalue()


def main() -> None:
    params = read_yaml(Path("params.yaml"))
    data = load_dataset(Path("data/prepared.safetensors"))
    original = load_model(Path("models/original.safetensors"), data).model
    files = {
        "original": export_onnx(original, data).SerializeToString(),
        "optimized": read_bytes(Path("models/optimized.onnx")),
    }
    scores = read_scores(Path("plots/models.csv"))
    playground = Playground(files, data, scores, params["train"]["network"], params["prepare"]["dataset"])
    build(playground, SOURCES, BUILD)
    print(f"-> {BUILD}, for any server of static files")


if __name__ == "__main__":
    run_stage(main)
