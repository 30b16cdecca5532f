"""Conjugate gradients for the weights of a layer that stay, with the same bits on every CPU."""

from torch import Tensor

from lightweight.gram.matmul import exact_matmul


def descend(weights: Tensor, start: Tensor, kept: Tensor, matrix: Tensor, steps: int) -> Tensor:
    """Lower the cost e^T H e of rows (G, rows, K), e being their distance from `weights`, within what is `kept`.

    Begins at `start`, which is zero elsewhere and stays so. The positive definite matrices H (G, K, K) are scaled by
    their diagonals. Every step lowers the cost of every row that can be lowered.
    """
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)[:, None]
    chosen = start.clone()
    residual = _product(weights - start, matrix, kept)
    direction = scaled = residual / diagonal
    fall = _sum(residual * scaled)
    for _ in range(steps):
        bent = _product(direction, matrix, kept)
        step = _ratio(fall, _sum(direction * bent))
        chosen += step * direction
        residual = residual - step * bent
        scaled = residual / diagonal
        fall, before = _sum(residual * scaled), fall
        direction = scaled + _ratio(fall, before) * direction
    return chosen


def _product(rows: Tensor, matrix: Tensor, kept: Tensor) -> Tensor:
    return exact_matmul(rows, matrix).where(kept, 0.0)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide where the denominator is positive; 0 elsewhere, where a row has come to its least cost."""
    positive = denominator > 0
    return (numerator / denominator.where(positive, 1.0)).where(positive, 0.0)


def _sum(values: Tensor) -> Tensor:
    """Sum over the last dimension, which is kept; the cumulative sum adds in order on every CPU."""
    return values.cumsum(-1)[..., -1:]
