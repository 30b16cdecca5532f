"""Class and probability of images, by the file that ships.

    python -m lightweight.predict models/optimized.onnx IMAGE ... [--fit]

Imports onnxruntime, numpy and Pillow only.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default, and read once: while it is imported

import numpy as np
import onnxruntime

from lightweight.core.errors import InputError, first_line
from lightweight.preparation.images import read_image


class Classifier:
    """An ONNX file of this project on the CPU."""

    def __init__(self, path: Path) -> None:
        """Raises InputError unless the file takes pixels (N, C, H, W) and knows its classes."""
        try:
            self.session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
            (taken,) = self.session.get_inputs()
            _, self.channels, height, self.size = taken.shape
            self.classes = json.loads(self.session.get_modelmeta().custom_metadata_map["classes"])
            (logits,) = self.session.run(None, {"input": np.zeros((1, *taken.shape[1:]), dtype=np.float32)})
            if not isinstance(self.classes, list) or logits.shape != (1, len(self.classes)):
                raise ValueError(f"gives {logits.shape} for one image and {len(self.classes)} classes")
        except OSError:
            raise
        except Exception as error:  # of classes that ONNX Runtime does not name in its interface
            raise InputError(f"{path}: damaged or not an ONNX file of this project: {first_line(error)}") from None
        if (self.channels, height) not in ((1, self.size), (3, self.size)):
            raise InputError(f"{path}: must take square images of 1 or 3 channels, takes {taken.shape}")

    def predict(self, path: Path, fit: bool) -> tuple[str, float]:
        """The most probable class of an image file and its probability; `fit` crops, resizes and converts as `prepare`.

        Raises InputError when the image cannot be read, or has another size or mode and must not be changed.
        """
        try:
            image, changes = read_image(path, self.size, self.channels)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        unwanted = [what for what in changes if not what.startswith("turned")]
        if unwanted and not fit:
            raise InputError(f"{path}: must be {' and '.join(unwanted)} for this model: --fit does it")
        (logits,) = self.session.run(None, {"input": image[None].astype(np.float32)})
        odds = np.exp(logits[0].astype(float) - logits.max())
        return self.classes[int(odds.argmax())], float(odds.max() / odds.sum())


def main() -> None:
    reader = argparse.ArgumentParser(
        prog="python -m lightweight.predict", description="Class and probability of images."
    )
    reader.add_argument("model", type=Path, help="such as models/optimized.onnx")
    reader.add_argument("images", type=Path, nargs="+", metavar="image")
    reader.add_argument("--fit", action="store_true", help="crop, resize and convert images as the data set's were")
    given = reader.parse_args()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names of files and classes may hold anything
    try:
        classifier = Classifier(given.model)
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    failed = False
    for path in given.images:
        try:
            name, probability = classifier.predict(path, given.fit)
        except (InputError, OSError) as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
        else:
            print(f"{path}  {name}  {probability:.2%}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
