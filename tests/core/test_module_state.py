"""Stored tensors load into layers that ask for the version that wrote them; what forward passes store is undone."""

import contextlib
from copy import deepcopy

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lightweight.core.module_state import forgetting_caches, load_state


class Versioned(nn.Linear):
    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *others) -> None:
        assert local_metadata.get("version") == self._version
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)


def test_plain_tensors_load_into_a_layer_that_asks_for_its_version_also_within_an_average():
    for wrap in (nn.Sequential, AveragedModel):
        first, second = (wrap(Versioned(2, 2)) for _ in range(2))
        load_state(second, dict(first.state_dict()))
        assert all(torch.equal(tensor, first.state_dict()[name]) for name, tensor in second.state_dict().items())


def test_other_objects_receive_their_state_as_it_is():
    class Stateful:
        def load_state_dict(self, state: dict) -> None:
            self.state = state

    stateful, state = Stateful(), {"epoch": 3}
    load_state(stateful, state)
    assert stateful.state is state


class Storing(nn.Linear):
    """A layer whose forward pass stores tensors that need gradients in new and old attributes, a list and a dict."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.old, self.many, self.named = None, [1], {"kept": 1}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output = super().forward(x)
        self.new = self.old = self.named["kept"] = self.named["more"] = output
        self.many.append(output)
        return output


def test_what_a_forward_pass_stores_is_forgotten_also_after_an_error():
    model = nn.Sequential(Storing(), Storing())
    many = model[0].many
    with contextlib.suppress(KeyError), forgetting_caches(model):
        model(torch.ones(1, 2))
        assert model[0].new.requires_grad
        raise KeyError
    for layer in model:
        assert not hasattr(layer, "new")
        assert (layer.old, layer.many, layer.named) == (None, [1], {"kept": 1})
    assert model[0].many is many
    deepcopy(model)  # which fails with a tensor in the graph of gradients
