"""Both runtimes predict each image alike, whatever batch it comes in, from normalised or from raw pixels."""

import numpy as np
import pytest
import torch
from torch import nn

from lightweight.data import Split
from lightweight.inference import onnx_logits, open_session, pixels, torch_logits
from tests.examples import METHODS, convnet_file, pruned_convnet


@pytest.mark.parametrize("batch_size", [1, 7, 60, 512])
def test_torch_predicts_every_image_in_order_in_evaluation_mode(tiny_dataset, batch_size):
    model = nn.Sequential(pruned_convnet(tiny_dataset), nn.Dropout(0.5)).train()
    found = torch_logits(model, tiny_dataset, tiny_dataset.val, batch_size)
    with torch.no_grad():
        expected = model[0](tiny_dataset.normalize(tiny_dataset.val.images)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("method", ["none", "static"])
def test_the_file_predicts_every_image_in_order_for_any_batch_size(tiny_dataset, method, batch_size):
    session = open_session(convnet_file(method, tiny_dataset), threads=1)
    expected = onnx_logits(session, tiny_dataset.val, 60)
    assert expected.shape == (60, 10)
    np.testing.assert_allclose(onnx_logits(session, tiny_dataset.val, batch_size), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_of_two_sessions_give_the_same_bits(tiny_dataset, method):
    content = convnet_file(method, tiny_dataset)
    runs = [onnx_logits(open_session(content, threads=1), tiny_dataset.val, 16) for _ in range(2)]
    assert runs[0].tobytes() == runs[1].tobytes()


def test_a_session_uses_the_threads_it_was_given_on_the_cpu(tiny_dataset):
    session = open_session(convnet_file("none", tiny_dataset), threads=3)
    assert session.get_session_options().intra_op_num_threads == 3
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_pixels_are_the_stored_values_as_float32():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    raw = pixels(Split(images, torch.zeros(1)).images)
    assert raw.dtype == np.float32
    assert raw.shape == (1, 1, 16, 16)
    assert raw.flatten().tolist() == list(range(256))
