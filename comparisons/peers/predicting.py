"""Classes that a file predicts for images, by the runtime that it is for; it runs in the environment of a peer.

    python -m comparisons.peers.predicting FILE IMAGES CLASSES

FILE is .xml for OpenVINO, .pt2 for PyTorch; IMAGES is an .npz with images uint8 (N, C, H, W); CLASSES becomes an .npy.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

BATCH_SIZE = 100
Predict = Callable[[np.ndarray], np.ndarray]


def with_openvino(path: Path) -> Predict:
    """Load a file of OpenVINO, on one thread and with no smaller floats than float32."""
    import openvino

    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(path), "CPU", exact)
    return lambda images: compiled({"input": images})[0]


def with_torch(path: Path) -> Predict:
    """Load a program that torch.export has saved, and run it as it stands."""
    import torch

    network = torch.export.load(path).module()
    return lambda images: network(torch.from_numpy(images)).detach().numpy()


RUNTIMES = {".xml": with_openvino, ".pt2": with_torch}


def main() -> None:
    path, images, classes = map(Path, sys.argv[1:])
    predict = RUNTIMES[path.suffix](path)
    test = np.load(images)["images"]
    batches = np.split(test.astype(np.float32), range(BATCH_SIZE, len(test), BATCH_SIZE))
    np.save(classes, np.concatenate([predict(batch).argmax(1) for batch in batches]))


if __name__ == "__main__":
    main()
