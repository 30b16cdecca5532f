"""The networks, the data and the settings in which pruning is compared."""

from dataclasses import dataclass, field
from typing import Any

SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
METHODS = (("unstructured", "global"), ("unstructured", "layer"), ("structured", "layer"))


@dataclass(frozen=True)
class Case:
    """Hold a network, changes of the prepare parameters, the number of training images, and epochs with their rate.

    The network is trained for `epochs` epochs, and fine-tuned for `tuning_epochs` after pruning.
    """

    network: str
    images: int
    epochs: int
    tuning_epochs: int
    lr: float
    prepare: dict[str, Any] = field(default_factory=dict)


CIFAR10 = {"dataset": "folder", "path": "cifar10-images", "image_size": 32, "channels": 3}
CASES = (
    Case("tiny", images=10_000, epochs=8, tuning_epochs=2, lr=0.005),
    Case("resnet20", images=2_000, epochs=8, tuning_epochs=1, lr=0.005, prepare=CIFAR10),
)
