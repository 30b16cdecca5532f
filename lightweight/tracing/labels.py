"""Labels of channels: numbers that each element of each tensor has, stored as the elements themselves are.

Labels of channels that must go together are united into one class. Labels of a tensor come in planes. Each plane gives
every element one label, and an element can belong to a channel in each plane: an element of a weight belongs to an
output channel and to an input channel.
"""

import torch
from torch import Tensor

NONE = 0  # the label of elements that belong to no channel
Planes = list[Tensor]  # of labels; a plane has the dimensions of its tensor, of size 1 where its labels do not vary


class Labels:
    """Hold the classes of all labels (union-find, Galler and Fischer 1964), and which classes must stay, and why.

    Every class is known by its smallest label, its root. All operations work on whole tensors of labels.
    """

    def __init__(self) -> None:
        self.roots = torch.zeros(1, dtype=torch.int64)  # of every label, another of its class, and at last the root
        self.reasons: dict[int, str] = {}  # by label that must stay
        self.flat = True  # whether each label knows its root itself

    def create(self, number: int) -> Tensor:
        """Create labels, each in a class of its own (number,)."""
        first = len(self.roots)
        labels = torch.arange(first, first + number)
        self.roots = torch.cat([self.roots, labels])
        return labels

    def find(self, labels: Tensor) -> Tensor:
        """Return the roots of labels, in the shape of the labels."""
        roots = self.roots[labels]
        if self.flat:
            return roots
        above = self.roots[roots]
        if not torch.equal(above, roots):
            while not torch.equal(above, roots):
                roots, above = above, self.roots[above]
            self.roots[labels] = roots  # so that the way is shorter next time
        return roots

    def copy(self) -> "Labels":
        """Return labels of the same classes that can be united apart from these."""
        copy = Labels()
        copy.roots, copy.reasons, copy.flat = self.roots.clone(), dict(self.reasons), self.flat
        return copy

    def flatten(self) -> None:
        """Tell every label its root, which makes finding it faster until classes are united."""
        while not torch.equal(above := self.roots[self.roots], self.roots):
            self.roots = above
        self.flat = True

    def unite(self, some: Tensor, others: Tensor) -> None:
        """Unite the classes of labels that meet, element by element; NONE meets nothing."""
        some, others = torch.broadcast_tensors(self.find(some), self.find(others))
        meets = (some != others) & (some != NONE) & (others != NONE)
        if not meets.any():
            return
        coded = (some[meets] * len(self.roots) + others[meets]).unique()
        pairs = torch.stack([coded // len(self.roots), coded % len(self.roots)])
        self.flat = False
        while len(pairs[0]):
            low, high = pairs.amin(0), pairs.amax(0)
            self.roots.scatter_reduce_(0, high, low, "amin")
            pairs = self.find(pairs)
            pairs = pairs[:, pairs[0] != pairs[1]]

    def tie(self, labels: Tensor, dims: list[int]) -> Tensor:
        """Unite labels that differ only in their place along some dimensions; return the first ones along these."""
        for dim in dims:
            first = labels.narrow(dim, 0, 1)
            self.unite(labels, first)
            labels = first
        return labels

    def keep_whole(self, labels: Tensor, reason: str) -> None:
        """Record that the classes of these labels must stay whole; the first reason of a class counts."""
        for label in self.find(labels).unique().tolist():
            if label != NONE:
                self.reasons.setdefault(label, reason)

    def whole_classes(self) -> dict[int, str]:
        """Return the reasons of the classes that must stay whole, by root; of several, that recorded first."""
        classes: dict[int, str] = {}
        for root, reason in zip(
            self.find(torch.tensor([*self.reasons], dtype=torch.int64)), self.reasons.values(), strict=True
        ):
            classes.setdefault(int(root), reason)
        return classes


def compact(plane: Tensor) -> Tensor:
    """Shorten the dimensions along which a plane does not vary to size 1."""
    for dim in range(plane.dim()):
        if plane.shape[dim] > 1:
            first = plane.narrow(dim, 0, 1)
            if plane.stride(dim) == 0 or (torch.equal(plane.narrow(dim, 1, 1), first) and bool((plane == first).all())):
                plane = first
    return plane


def varying(plane: Tensor) -> list[int]:
    """List the dimensions along which a plane varies."""
    return [dim for dim, size in enumerate(plane.shape) if size > 1]
