"""Classification of images by the file that ships: class and probability of each.

    python -m lightweight.predict models/optimized.onnx IMAGE ... [--fit]

Imports onnxruntime, onnx, numpy and Pillow only.
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from threading import Timer

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np

from lightweight.core.errors import InputError
from lightweight.data.resizing import FIT, Resizing, parse_resizing
from lightweight.onnx.session import compute_bounded_logits, load_inference_session
from lightweight.preparation.images import read_image

MAX_SECONDS = 60.0  # for one image, or for loading and a black image; a file of a stranger may take years


class Classifier:
    """Represent an ONNX file of this project, run on the CPU."""

    def __init__(self, path: Path) -> None:
        """Load and check the file. Raises InputError unless it takes square images and names its classes."""
        self.session = load_inference_session(path, threads=0)
        _, self.channels, height, self.size = shape = self.session.get_inputs()[0].shape
        if (self.channels, height) not in ((1, self.size), (3, self.size)):
            raise InputError(f"{path}: must take square images of 1 or 3 channels, takes {shape}")
        self.classes, self.resizing = self._read_classes(path), self._read_resizing(path)

    def _read_classes(self, path: Path) -> list[str]:
        """Read the class names from the metadata. Raises InputError unless each logit has a printable one."""
        text = self.session.get_modelmeta().custom_metadata_map.get("classes", "[]")
        try:
            classes = [str(name) for name in json.loads(text)]
        except (ValueError, TypeError, RecursionError):
            classes = []
        count = self.session.get_outputs()[0].shape[1]
        if len(classes) != count:
            raise InputError(f"{path}: names {len(classes)} classes in its metadata, has {count} logits")
        unprintable = [name for name in classes if not name.isprintable()]
        if unprintable:  # it could forge lines of results, or command the terminal
            raise InputError(f"{path}: the name of a class must be printable text: {unprintable[0]!r}")
        return classes

    def _read_resizing(self, path: Path) -> Resizing:
        """Read from the metadata how photographs become images of the model. Raises InputError."""
        try:
            described = json.loads(self.session.get_modelmeta().custom_metadata_map.get("input", "{}"))
            return parse_resizing(described if isinstance(described, dict) else {}, self.size)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: its metadata does not describe its input: {error}") from None

    def predict(self, path: Path, fit: bool) -> tuple[str, float]:
        """Return the most probable class of an image file and its probability.

        `fit` allows to crop, resize and convert the image as the images of the data set were. Raises InputError when
        the image cannot be read, or has another size or mode and `fit` is not set, or when the model fails at it.
        """
        try:
            image, changes = read_image(path, self.size, self.channels, self.resizing if fit else FIT)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        needed = [change for change in changes if not change.startswith("turned")]
        if needed and not fit:
            raise InputError(f"{path}: must be {' and '.join(needed)} for this model: --fit does it")
        try:
            logits = compute_bounded_logits(self.session, image).astype(float)
        except ValueError as error:
            raise InputError(f"{path}: the model cannot predict it: {error}") from None
        if not np.isfinite(logits).all():
            raise InputError(f"{path}: the model cannot predict it: gives logits that are no finite numbers")
        weights = np.exp(logits - logits.max())  # softmax without overflow
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
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        with _bound_time(f"{arguments.model}: took", "a black image"):
            classifier = Classifier(arguments.model)
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    failed = False
    for path in arguments.images:
        try:
            with _bound_time(f"{path}: the model took", "it"):
                name, probability = classifier.predict(path, arguments.fit)
        except (InputError, OSError) as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
        else:
            print(f"{path}  {name}  {probability:.2%}")
    sys.exit(failed)


@contextmanager
def _bound_time(subject: str, what: str) -> Iterator[None]:
    """End the process in one line that begins with `subject` when the block takes more than `MAX_SECONDS`."""
    timer = Timer(MAX_SECONDS, _give_up, [f"{subject} more than {MAX_SECONDS:.0f} seconds for {what}"])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _give_up(line: str) -> None:
    """End the process from another thread, because ONNX Runtime cannot be interrupted."""
    print(f"error: {line}", file=sys.stderr, flush=True)
    sys.stdout.flush()  # of the images before
    os._exit(1)


if __name__ == "__main__":
    main()
