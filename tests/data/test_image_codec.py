import numpy as np
import pytest

from lightweight.data.image_codec import decode, encode


def photograph(channels: int, size: int = 24) -> np.ndarray:
    """A smooth image, which JPEG keeps nearly as it is."""
    y, x = np.mgrid[:size, :size] / size
    layers = [128 + 100 * np.sin(3 * x + number) * np.cos(2 * y) for number in range(channels)]
    return np.stack(layers).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("storage", ["pixels", "png"])
def test_pixels_and_png_keep_every_pixel(storage, channels):
    noise = np.random.default_rng(0).integers(0, 256, (channels, 17, 17), dtype=np.uint8)
    found = decode(memoryview(encode(noise, storage)), noise.shape, storage)
    assert found.dtype == np.uint8
    assert np.array_equal(found, noise)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_keeps_a_photograph_within_a_few_grey_levels_and_is_smaller(channels):
    image = photograph(channels)
    content = encode(image, "jpeg")
    found = decode(memoryview(content), image.shape, "jpeg")
    assert found.shape == image.shape
    assert np.abs(found.astype(int) - image).max() <= 4
    assert len(encode(photograph(channels, 224), "jpeg")) < channels * 224**2 / 4


@pytest.mark.parametrize("storage", ["jpeg", "png"])
@pytest.mark.parametrize("shape", [(3, 24, 25), (1, 24, 24), (3, 1000, 1000)])
def test_an_image_of_another_shape_is_refused_before_it_is_decoded(storage, shape):
    with pytest.raises(ValueError, match="among those of"):
        decode(memoryview(encode(photograph(3), storage)), shape, storage)


def test_an_image_of_another_format_is_refused():
    with pytest.raises(OSError, match="cannot identify"):
        decode(memoryview(encode(photograph(3), "png")), (3, 24, 24), "jpeg")
