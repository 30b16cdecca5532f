"""A network is laid out with channels last, where its tensors have that layout."""

import torch
from torch import nn

from lightweight.core.memory_format import to_memory_format


def test_tensors_of_four_dimensions_are_laid_out_and_the_others_stay():
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv3d(1, 4, 3), nn.Linear(4, 4))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert to_memory_format(network, torch.channels_last) is network
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert network[1].weight.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(isinstance(value, nn.Parameter) for value in network.parameters())
