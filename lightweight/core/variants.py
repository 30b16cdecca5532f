"""The five models of one pipeline run, named by what was done to them, in the order of the stages."""

from typing import Literal, get_args

VariantName = Literal["original", "averaged", "pruned", "recalibrated", "optimized"]
VARIANTS: tuple[VariantName, ...] = get_args(VariantName)
