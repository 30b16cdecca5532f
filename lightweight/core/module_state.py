"""The state of modules: tensors that were stored by name, and what a forward pass leaves behind."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


@contextmanager
def forgetting_caches(model: nn.Module) -> Iterator[None]:
    """Undo what forward passes within the context store in attributes of the layers.

    Some networks keep biases of attention there in evaluation mode. With gradients, they could no longer be copied.
    """
    before = [(vars(module), dict(vars(module))) for module in model.modules()]
    containers = [
        (value, (list(value) if isinstance(value, list) else dict(value)) if value else ())
        for _, attributes in before
        for value in attributes.values()
        if isinstance(value, dict | list)
    ]
    try:
        yield
    finally:
        for attributes, old in before:
            for name in attributes.keys() - old.keys():
                del attributes[name]
            attributes.update(old)
        for value, contents in containers:
            if value or contents:
                value.clear()
                value.extend(contents) if isinstance(value, list) else value.update(contents)
