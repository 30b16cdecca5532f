"""Linear layers of oneDNN compute what those of PyTorch compute, forwards and backwards."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from lightweight.execution.linear import OneDnnLinear, _linear, use_portable_linear


@pytest.fixture
def registered() -> Iterator[None]:
    """Other tests of this process compute as PyTorch does."""
    library = use_portable_linear()
    yield
    library._destroy()
    use_portable_linear.cache_clear()


@pytest.mark.usefixtures("registered")
def test_pytorch_calls_the_linear_layer_of_onednn_once_it_is_registered():
    layer = torch.nn.Linear(5, 3)
    assert type(layer(torch.ones(2, 5)).grad_fn).__name__ == "OneDnnLinearBackward"
    assert use_portable_linear() is use_portable_linear()


@pytest.mark.parametrize("shape", [(4, 6), (1, 6), (2, 3, 6), (6,)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_outputs_and_gradients_are_those_of_the_definition(shape, with_bias):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(shape, generator=generator, requires_grad=True)
    weight = torch.randn(5, 6, generator=generator, requires_grad=True)
    bias = torch.randn(5, generator=generator, requires_grad=True) if with_bias else None
    outputs = OneDnnLinear.apply(inputs, weight, bias)
    direction = torch.randn(outputs.shape, generator=generator)
    given = [tensor for tensor in (inputs, weight, bias) if tensor is not None]
    actual = torch.autograd.grad(outputs, given, direction)
    doubles = [tensor.detach().double().requires_grad_() for tensor in given]
    expected = doubles[0] @ doubles[1].T + (doubles[2] if with_bias else 0)
    torch.testing.assert_close(outputs, expected.float())
    for one, other in zip(actual, torch.autograd.grad(expected, doubles, direction.double()), strict=True):
        torch.testing.assert_close(one, other.float())


def test_a_frozen_weight_gets_no_gradient_and_the_inputs_theirs():
    inputs = torch.ones(2, 3, requires_grad=True)
    weight, bias = torch.ones(4, 3), torch.ones(4)
    OneDnnLinear.apply(inputs, weight, bias).sum().backward()
    assert torch.equal(inputs.grad, torch.full((2, 3), 4.0))
    assert weight.grad is None


@pytest.mark.parametrize("inputs", [torch.ones(2, 3, dtype=torch.float64), torch.ones(0, 3)])
def test_what_onednn_does_not_compute_is_left_to_pytorch(inputs):
    weight = torch.ones(4, 3, dtype=inputs.dtype)
    assert torch.equal(_linear(inputs, weight), inputs @ weight.T)


@pytest.mark.usefixtures("registered")
def test_an_exported_graph_holds_the_linear_layer_itself():
    program = torch.export.export(torch.nn.Linear(5, 3), (torch.ones(2, 5),))
    assert "aten.linear.default" in [str(node.target) for node in program.graph.nodes]


@pytest.mark.usefixtures("registered")
def test_a_parameter_of_another_type_under_autocast_is_cast_as_by_pytorch():
    layer = torch.nn.Linear(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer(torch.ones(2, 5))
    assert outputs.dtype == torch.bfloat16
    torch.testing.assert_close(outputs.float(), F.linear(torch.ones(2, 5), layer.weight, layer.bias), atol=2e-2, rtol=0)
