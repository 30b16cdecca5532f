"""Imitated results have the shape, type and memory format of the operator's own, and bad sizes are refused alike."""

import pytest
import torch

from lightweight.tracing.imitation import imitate

aten = torch.ops.aten
IMAGES, CHANNELS_LAST = torch.ones(2, 6, 9, 7), torch.ones(2, 6, 9, 7).contiguous(memory_format=torch.channels_last)
CONVOLUTIONS = {
    "plain": (torch.ones(4, 6, 3, 3), torch.ones(4), [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    "one number for both sides": (torch.ones(4, 6, 3, 2), None, [2], [1], [1], False, [0], 1),
    "strided, padded, dilated": (torch.ones(4, 6, 3, 2), None, [2, 3], [2, 1], [2, 1], False, [0, 0], 1),
    "grouped": (torch.ones(4, 3, 3, 3), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 2),
    "transposed": (torch.ones(6, 4, 3, 2), torch.ones(4), [2, 3], [1, 0], [2, 1], True, [1, 2], 1),
    "transposed in groups": (torch.ones(6, 4, 3, 3), None, [2, 2], [0, 0], [1, 1], True, [0, 0], 3),
}
UNFIT = {
    "channels": (torch.ones(4, 5, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    "groups": (torch.ones(5, 3, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 2),
    "bias": (torch.ones(4, 6, 3, 3), torch.ones(3), [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    "kernel": (torch.ones(4, 6, 3, 8), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
}


@pytest.mark.parametrize("images", [IMAGES, CHANNELS_LAST])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, images):
    expected = aten.convolution.default(images, *CONVOLUTIONS[name])
    imitated = imitate(aten.convolution.default, (images, *CONVOLUTIONS[name]), {})
    assert (imitated.shape, imitated.dtype, imitated.stride()) == (expected.shape, expected.dtype, expected.stride())
    assert not imitated.any()


@pytest.mark.parametrize("name", UNFIT)
def test_convolutions_of_what_does_not_fit(name):
    for execute in (imitate, lambda func, args, kwargs: func(*args, **kwargs)):
        with pytest.raises(RuntimeError):
            execute(aten.convolution.default, (IMAGES, *UNFIT[name]), {})


@pytest.mark.parametrize(
    ("func", "shapes"),
    [
        (aten.mm.default, [(2, 3), (3, 4)]),
        (aten.bmm.default, [(5, 2, 3), (5, 3, 4)]),
        (aten.addmm.default, [(4,), (2, 3), (3, 4)]),
        (aten.baddbmm.default, [(5, 1, 4), (5, 2, 3), (5, 3, 4)]),
    ],
)
def test_matrix_products(func, shapes):
    tensors = [torch.ones(shape, dtype=torch.float64) for shape in shapes]
    expected, imitated = func(*tensors), imitate(func, tensors, {})
    assert (imitated.shape, imitated.dtype, imitated.stride()) == (expected.shape, expected.dtype, expected.stride())
    assert not imitated.any()
    for number in range(len(tensors) - 1):
        unfit = torch.ones(*shapes[number][:-1], 7)
        with pytest.raises(RuntimeError):
            imitate(func, [unfit if place == number else tensor for place, tensor in enumerate(tensors)], {})
