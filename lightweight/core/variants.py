"""Names of the models of one pipeline run: what was done to each, in the order of the stages."""

from collections.abc import Collection
from typing import Literal, get_args

VariantName = Literal["original", "averaged", "pruned", "recalibrated", "optimized"]
VARIANTS: tuple[VariantName, ...] = get_args(VariantName)
COMPACT = "compact"  # a sixth, where section `compact` is enabled


def in_order(names: Collection[str]) -> list[str]:
    """List those of the names that are variants, in the order of the stages."""
    return [name for name in (*VARIANTS, COMPACT) if name in names]
