"""Plan: which channels of a network can be removed, found by a trace and held against the network's own logits."""

from collections.abc import Set
from copy import deepcopy
from dataclasses import dataclass

from torch import Tensor, nn
from tqdm import tqdm

from lightweight.dependencies.groups import Group, Size
from lightweight.dependencies.planner import Planner
from lightweight.tracing.labels import Labels
from lightweight.tracing.trace import Place

MAX_ROUNDS = 40  # of checks that name a layer; what is left then is divided into halves


@dataclass(frozen=True)
class Plan:
    """Hold the groups of a network by name, and the reason of every layer that is in none.

    `sizes` are attributes that count channels. `rows` are the steps of the trace that remove whole parts.
    """

    groups: dict[str, Group]
    skipped: dict[str, str]
    sizes: list[Size]
    labels: Labels
    rows: Set[Place]


def make_plan(model: nn.Module, image: Tensor, heads: bool) -> Plan:
    """Find the groups from which channels can be removed, for images (1, C, H, W).

    With `heads`, attention loses whole heads; else every head stays, and loses channels where the network allows it.
    Leaves the model in evaluation mode. Raises InputError when the network cannot be run.
    """
    model.eval()
    planner = Planner(_to_cpu(model), image.cpu(), heads)
    with tqdm(desc="checks of groups", leave=False, disable=None) as progress:
        for _ in range(MAX_ROUNDS):
            progress.update()
            if planner.improve(planner.check_shapes) and planner.improve(planner.check_logits):
                break
        else:
            planner.divide(planner.check_logits)
    return Plan(planner.groups, planner.skipped, planner.sizes, planner.trace.labels, planner.rows)


def _to_cpu(model: nn.Module) -> nn.Module:
    """Return a copy of a network on the CPU; it shares the tensors that are there."""
    tensors = [*model.parameters(), *model.buffers()]
    return deepcopy(model, {id(tensor): tensor for tensor in tensors if tensor.device.type == "cpu"}).cpu()
