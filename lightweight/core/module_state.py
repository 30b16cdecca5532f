"""The state of modules that was stored as plain named tensors."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn


def load_state(target: Any, state: Mapping[str, Any]) -> None:
    """Load a state into a module, or into any object with `load_state_dict`.

    Stored tensors have lost the versions of the layers that wrote them, which some networks ask for, such as MnasNet of
    torchvision: the module's own versions take their place.
    """
    if isinstance(target, nn.Module):
        versions = getattr(target.state_dict(), "_metadata", None)
        state = OrderedDict(state)
        state._metadata = versions  # type: ignore[attr-defined]  # where PyTorch looks for the versions
    target.load_state_dict(state)
