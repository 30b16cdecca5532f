"""Channels pass every family of operators; without some of them a network gives the logits of the reference."""

import time
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from lightweight.dependencies.consistency import ConsistencyCheck
from lightweight.dependencies.groups import find_groups
from lightweight.dependencies.plan import Plan, make_plan
from lightweight.dependencies.reference import Reference
from lightweight.dependencies.removal import places_of, remove_places, remove_sizes
from lightweight.dependencies.shapes import ShapeCheck
from lightweight.networks.pruned_shapes import changed_shapes, shrink_to
from lightweight.tracing.trace import label_image, run, trace
from tests.dependencies.networks import Attention, Net, conv, make

IMAGE = torch.linspace(-1, 1, 192, dtype=torch.float64).view(1, 3, 8, 8)
FAMILIES = {  # the groups of each network, with their number of members
    "residual sum": {"a": 8},
    "in-place sum of a part": {"a": 8},
    "depthwise": {"a": 8},
    "concat": {"a": 8, "b": 8},
    "shuffle": {"a": 4, "b": 8},
    "gate": {"a": 8},
    "glu": {"a": 8},
    "flip": {"a": 8},
    "pixel shuffle": {"a": 2, "b": 4},
    "grouped": {"a": 4, "b": 8},
    "flatten": {"a": 8},
    "squeeze and excite": {"a": 8, "gate.1": 2},
    "layer norm": {"a": 8},
    "group norm": {"a": 4},
    "softmax over channels": {"a": 8},
    "norm over channels": {"a": 8},
    "standardised weights": {"a": 8, "b": 8},
    "attention": {"a": 8, "attention.qkv": 4, "attention.proj": 8},
    "fused attention": {"a": 8, "attention.qkv": 4, "attention.proj": 8},
    "einsum attention": {"a": 8, "attention.qkv": 2, "attention.proj": 8},
    "attention of channels": {"a": 8, "attention.qkv": 4, "attention.proj": 8},
    "ghost": {"a": 8},
    "split by attributes": {"a": 8, "b.conv": 12, "b.first": 4},
    "view by attributes": {"a": 8},
    "buffer in no state": {"a": 8},
    "partial convolution": {"a": 12, "b.first": 4, "c.first": 4},
    "mixer": {"a": 8, "b": 16, "c": 64},
    "partial sums": {"a": 16},
    "transposed": {"a": 8, "c": 8},
}


def without(model: nn.Module, plan: Plan, members: dict[str, list[int]]) -> nn.Module:
    """Return a copy of the network without members of groups."""
    smaller = deepcopy(model)
    remove_places(smaller, places_of(plan.groups, members))
    removed = torch.cat([plan.groups[name].classes[numbers] for name, numbers in members.items()])
    remove_sizes(smaller, plan.sizes, plan.labels, removed)
    return smaller


def reference(model: nn.Module, plan: Plan, members: dict[str, list[int]]) -> Tensor:
    """Compute the logits of the whole network, executed as if members of groups were not there."""
    found = trace(model, IMAGE, [], plan.rows)
    removed = []
    for name, numbers in members.items():
        for axis, cut in plan.groups[name].cuts.items():
            removed.append(found.axes[axis][cut.indices[torch.isin(cut.members, torch.tensor(numbers))]])
    mode = Reference(model, found, found.labels.find(torch.cat(removed)), plan.rows)
    label_image(mode, IMAGE.clone())
    return run(mode, model, IMAGE)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_groups_of_a_family_have_their_members(family):
    plan = make_plan(make(family), IMAGE.float(), True)
    assert {name: group.size for name, group in plan.groups.items()} == FAMILIES[family]
    assert plan.skipped["fc"] == "it gives the network's outputs"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("members", [[0], [1]])
def test_without_a_member_of_every_group_the_logits_are_those_of_the_reference(family, members):
    model = make(family).double().eval()
    plan = make_plan(model, IMAGE, True)
    chosen = dict.fromkeys(plan.groups, members)
    smaller = without(model, plan, chosen)
    with torch.no_grad():
        logits = smaller(IMAGE)
    assert sum(tensor.numel() for tensor in smaller.parameters()) < sum(tensor.numel() for tensor in model.parameters())
    torch.testing.assert_close(logits, reference(model, plan, chosen))
    assert not torch.equal(logits, model(IMAGE))


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_alone_rebuild_the_smaller_network(family):
    model = make(family).double().eval()
    plan = make_plan(model, IMAGE, True)
    smaller = without(model, plan, {name: [0] for name in plan.groups})
    rebuilt = make(family).double().eval()
    shrink_to(rebuilt, changed_shapes(model, smaller))
    rebuilt.load_state_dict(smaller.state_dict())
    with torch.no_grad():
        assert torch.equal(rebuilt(IMAGE), smaller(IMAGE))


def test_a_layer_without_weights_that_read_the_removed_channels_zeroes_them():
    model = make("concat").double().eval()
    plan, zeroed = make_plan(model, IMAGE, True), deepcopy(model)
    with torch.no_grad():
        zeroed.b.weight[:, 2] = 0
        zeroed.fc.weight[:, 2] = 0
        torch.testing.assert_close(without(model, plan, {"a": [2]})(IMAGE), zeroed(IMAGE))


def test_the_channels_of_one_head_go_together():
    plan = make_plan(make("fused attention"), IMAGE.float(), True)
    cut = plan.groups["attention.qkv"].cuts["attention.qkv.weight", 0]
    assert cut.indices[cut.members == 1].tolist() == [2, 3, 10, 11, 18, 19]


def test_without_heads_every_head_stays():
    torch.manual_seed(0)
    layers = {"a": conv(3, 32), "attention": Attention(32, 4, False), "fc": nn.Linear(32, 5)}
    model = Net(lambda n, x: n.fc(n.attention(n.a(x).flatten(2).transpose(1, 2)).mean(1)), **layers)
    cut = make_plan(model, IMAGE.float(), False).groups["attention.qkv"].cuts["attention.qkv.weight", 0]
    assert cut.indices[cut.members == 1].tolist() == [*range(1, 96, 8)]


def test_multihead_attention_of_torch_loses_whole_heads_with_the_channels_that_it_reads():
    torch.manual_seed(0)
    layers = {"a": conv(3, 8), "attention": nn.MultiheadAttention(8, 4, batch_first=True), "fc": nn.Linear(8, 5)}

    def way(net: Net, images: Tensor) -> Tensor:
        tokens = net.a(images).flatten(2).transpose(1, 2)
        return net.fc(net.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))

    model = Net(way, **layers).double().eval()
    plan = make_plan(model, IMAGE, True)
    assert (plan.groups["a"].size, plan.skipped) == (4, {"fc": "it gives the network's outputs"})
    smaller = without(model, plan, {"a": [0, 2]})
    assert (smaller.attention.num_heads, smaller.attention.embed_dim, smaller.attention.head_dim) == (2, 4, 2)
    with torch.no_grad():
        torch.testing.assert_close(smaller(IMAGE), reference(model, plan, {"a": [0, 2]}))


def test_a_fixed_number_in_the_code_spares_the_group_and_names_the_layer():
    model = Net(lambda n, x: n.fc(n.a(x).view(1, 8, 64).mean(2)), a=conv(3, 8), fc=nn.Linear(8, 5))
    plan = make_plan(model, IMAGE.float(), True)
    expected = "without a channel the others are no longer where the network (view) expects them"
    assert (plan.groups, plan.skipped["a"]) == ({}, expected)


def test_an_operator_that_is_not_known_keeps_what_it_reads_whole():
    model = Net(
        lambda n, x: n.fc(n.b(n.a(x).sort(1).values).mean((2, 3))), a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 5)
    )
    plan = make_plan(model, IMAGE.float(), True)
    assert list(plan.groups) == ["b"]
    assert plan.skipped["a"] == "what happens to its channels is not known at the network (sort)"


def test_channels_that_are_computed_with_the_image_or_padded_stay():
    image = Net(lambda n, x: n.fc((n.a(x) + x).mean((2, 3))), a=conv(3, 3), fc=nn.Linear(3, 5))
    assert make_plan(image, IMAGE.float(), True).skipped["a"] == "its channels are computed with those of the image"
    padded = Net(
        lambda n, x: n.fc((n.a(x) + nn.functional.pad(n.b(x), (0, 0, 0, 0, 2, 2))).mean((2, 3))),
        a=conv(3, 8),
        b=conv(3, 4),
        fc=nn.Linear(8, 5),
    )
    reason = "a fixed number of channels is added at the network (constant_pad_nd)"
    skipped = make_plan(padded, IMAGE.float(), True).skipped
    assert (skipped["a"], skipped["b"]) == (reason, reason)


def test_the_check_finds_the_operator_that_a_wrong_group_breaks():
    model = make("residual sum").double().eval()
    found = trace(model, IMAGE, [])
    groups, _ = find_groups(model, found)
    checks = ShapeCheck(model, IMAGE, found, []), ConsistencyCheck(model, IMAGE, found, frozenset(), [])
    assert [check.find_failure(groups) for check in checks] == [None, None]
    del groups["a"].cuts["b.weight", 0]
    failures = [check.find_failure(groups) for check in checks]
    assert [failure and failure.place for failure in failures] == [("b", "convolution", 1)] * 2


def test_the_check_does_not_pass_by_chance_where_two_groups_must_be_of_equal_size():
    model = Net(
        lambda n, x: n.fc(
            (n.a(x).mean((2, 3)).unsqueeze(1) @ n.b(x).mean((2, 3)).reshape(1, n.a.out_channels, -1))[:, 0]
        ),
        a=conv(3, 8),
        b=conv(3, 8),
        fc=nn.Linear(1, 5),
    )
    plan = make_plan(model, IMAGE.float(), True)
    assert list(plan.groups) == ["a"]
    assert plan.groups["a"].layers == ["a", "b"]


def test_one_inconsistent_group_among_many_costs_few_checks(monkeypatch):
    checks: list[str] = []
    for check in (ShapeCheck, ConsistencyCheck):
        original = check.find_failure

        def counted(self, groups, original=original):
            checks.append(type(self).__name__)
            return original(self, groups)

        monkeypatch.setattr(check, "find_failure", counted)
    stack = nn.Sequential(*(conv(8, 8) for _ in range(30)))
    model = Net(
        lambda n, x: n.fc(n.b(n.stack(n.a(x)).view(1, 8, 64)).mean(2)),
        a=conv(3, 8),
        stack=stack,
        b=nn.Linear(64, 4),
        fc=nn.Linear(8, 5),
    )
    plan = make_plan(model, IMAGE.float(), True)
    assert len(plan.groups) == 31
    assert set(plan.skipped) == {"stack.29", "fc"}
    assert len(checks) <= 5


def test_ways_that_multiply_are_planned_in_seconds():
    started = time.process_time()
    make_plan(make("partial sums"), IMAGE.float(), True)
    assert time.process_time() - started < 20
