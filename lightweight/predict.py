"""Classification of images by the file that ships: class and probability of each.

    python -m lightweight.predict models/optimized.onnx IMAGE ... [--fit]

Imports onnxruntime, numpy and Pillow only.
"""

import argparse
import json
import sys
from io import TextIOWrapper
from pathlib import Path

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnxruntime

from lightweight.core.errors import InputError, first_line
from lightweight.core.files import FORMAT_KEY, check_format
from lightweight.preparation.images import read_image


class Classifier:
    """Represent an ONNX file of this project, run on the CPU."""

    def __init__(self, path: Path) -> None:
        """Load the file. Raises InputError unless the model takes pixels (N, C, H, W) and names its classes."""
        try:
            self.session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
            (pixels,) = self.session.get_inputs()
            _, self.channels, height, self.size = pixels.shape
            metadata = self.session.get_modelmeta().custom_metadata_map
            check_format(path, json.loads(metadata.get(FORMAT_KEY, "0")))
            self.classes = json.loads(metadata["classes"])
            (logits,) = self.session.run(None, {"input": np.zeros((1, *pixels.shape[1:]), dtype=np.float32)})
            if not isinstance(self.classes, list) or logits.shape != (1, len(self.classes)):
                raise ValueError(f"gives {logits.shape} for one image and {len(self.classes)} classes")
        except (OSError, InputError):  # a missing file, or one of another format
            raise
        except Exception as error:  # of classes that ONNX Runtime does not name in its interface
            raise InputError(f"{path}: damaged or not an ONNX file of this project: {first_line(error)}") from None
        if (self.channels, height) not in ((1, self.size), (3, self.size)):
            raise InputError(f"{path}: must take square images of 1 or 3 channels, takes {pixels.shape}")

    def predict(self, path: Path, fit: bool) -> tuple[str, float]:
        """Return the most probable class of an image file and its probability.

        `fit` allows to crop, resize and convert the image as the images of the data set were. Raises InputError when
        the image cannot be read, or has another size or mode and `fit` is not set.
        """
        try:
            image, changes = read_image(path, self.size, self.channels)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        needed = [change for change in changes if not change.startswith("turned")]
        if needed and not fit:
            raise InputError(f"{path}: must be {' and '.join(needed)} for this model: --fit does it")
        (logits,) = self.session.run(None, {"input": image[None].astype(np.float32)})
        weights = np.exp(logits[0].astype(float) - logits.max())  # softmax without overflow
        return self.classes[int(weights.argmax())], float(weights.max() / weights.sum())


def main() -> None:
    """Print class and probability of the images on the command line; exit code 1 when any cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m lightweight.predict", description="Class and probability of images."
    )
    parser.add_argument("model", type=Path, help="such as models/optimized.onnx")
    parser.add_argument("images", type=Path, nargs="+", metavar="image")
    parser.add_argument("--fit", action="store_true", help="crop, resize and convert images as the data set's were")
    arguments = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files and classes may hold anything
    try:
        classifier = Classifier(arguments.model)
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    failed = False
    for path in arguments.images:
        try:
            name, probability = classifier.predict(path, arguments.fit)
        except (InputError, OSError) as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
        else:
            print(f"{path}  {name}  {probability:.2%}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
