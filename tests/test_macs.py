"""MACs are counted of any network, and counting changes nothing."""

import torch
from torch import Tensor, nn

from lightweight.macs import count_macs


class Queries(nn.Module):
    """A network that hands a part of a parameter to a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.frozen, self.head = nn.Parameter(torch.ones(1, 4)), nn.Linear(4, 8), nn.Linear(8, 10)
        self.frozen.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.frozen(self.queries.expand(len(images), -1)))


def test_parts_of_parameters_may_be_handed_to_layers_and_what_is_frozen_stays_so():
    model = Queries()
    assert count_macs(model, torch.zeros(1, 1, 2, 2)) == 4 * 8 + 8 * 10
    assert [name for name, tensor in model.named_parameters() if tensor.requires_grad] == [
        "queries", "head.weight", "head.bias"
    ]  # fmt: skip
