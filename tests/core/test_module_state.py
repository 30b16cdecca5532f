"""Stored tensors load into networks whose layers ask for the version that wrote them."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lightweight.core.module_state import load_state


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
