"""Names of the five models of one pipeline run: what was done to each, in the order of the stages."""

from typing import Literal, get_args

VariantName = Literal["original", "averaged", "pruned", "recalibrated", "optimized"]
VARIANTS: tuple[VariantName, ...] = get_args(VariantName)
