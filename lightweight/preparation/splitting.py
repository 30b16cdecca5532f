"""Splitting: images are drawn from a split with a seed so that the shares of the classes stay equal."""

from collections.abc import Mapping, Sequence

import numpy as np

from lightweight.core.errors import bad_param


def split_places(
    splits: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str], shares: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Return the places of the images of every split, in ascending order: those that a source has, and drawn ones.

    `labels` (N,) are of all places. A split that the source lacks is drawn from what is left of training, with its
    share by parameter in `shares`. Raises InputError.
    """
    found = dict(splits)
    for key, share in shares.items():
        name = key.removesuffix("_fraction")
        if name not in found:
            train = found["train"]
            first, second = _draw(labels[train], classes, key, share, seed)
            found["train"], found[name] = train[first], train[second]
    return found


def _draw(
    labels: np.ndarray, classes: Sequence[str], key: str, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split indices of labels into two parts with equal class shares, the second with `share` of all."""
    from sklearn.model_selection import train_test_split  # seconds, which checking parameters need not pay

    single = [classes[label] for label, number in enumerate(np.bincount(labels)) if number < 2]
    if single:
        raise bad_param(f"prepare.{key}", share, f"class {single[0]!r} has a single image left, which cannot be split")
    try:
        first, second = train_test_split(np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed)
    except ValueError as error:
        raise bad_param(f"prepare.{key}", share, f"{len(labels)} images cannot be split so: {error}") from None
    return np.sort(first), np.sort(second)
