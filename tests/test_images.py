import numpy as np
import pytest
from PIL import Image

from lightweight.errors import InputError
from lightweight.images import fit, fit_all, read_image

NOISE = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)


def refusal(path) -> str:
    with pytest.raises(InputError) as error:
        read_image(path, 8, 1)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("size", [(8, 8), (30, 9), (5, 16), (1, 1)])
def test_every_mode_and_size_becomes_the_wanted_shape(size, mode, channels):
    found = fit(Image.new("RGB", size, (255, 255, 255)).convert(mode), 8, channels)
    assert found.shape == (channels, 8, 8)
    assert found.dtype == np.uint8
    assert (found == 255).all()


def test_an_image_of_the_wanted_size_is_kept_bitwise():
    assert np.array_equal(fit(Image.fromarray(NOISE[0]), 12, 3), NOISE[0].transpose(2, 0, 1))
    assert np.array_equal(fit(Image.fromarray(NOISE[0, ..., 0]), 12, 1)[0], NOISE[0, ..., 0])


def test_grey_becomes_three_equal_channels():
    found = fit(Image.fromarray(NOISE[0, ..., 0]), 8, 3)
    assert (found == found[:1]).all()
    assert np.array_equal(found[:1], fit(Image.fromarray(NOISE[0, ..., 0]), 8, 1))


def test_colour_becomes_grey_by_its_luma():
    found = fit(Image.fromarray(NOISE[0]), 12, 1)[0]
    assert np.abs(found - NOISE[0] @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.mark.parametrize("turn", [False, True])
def test_the_square_around_the_centre_is_kept(turn):
    strip = np.zeros((10, 30), dtype=np.uint8)
    strip[:, 10:20] = 255
    found = fit(Image.fromarray(strip.T.copy() if turn else strip), 10, 1)
    assert (found == 255).all()


def test_shrinking_keeps_the_mean_brightness():
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    assert fit(Image.fromarray(ramp), 8, 1).mean() == pytest.approx(ramp.mean(), abs=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [12, 8, 20])
@pytest.mark.parametrize("images", [NOISE, NOISE[..., 0]], ids=["colour", "grey"])
def test_many_images_are_fitted_as_each_alone(images, size, channels):
    found = fit_all(images, size, channels)
    assert np.array_equal(found, np.stack([fit(Image.fromarray(image), size, channels) for image in images]))
    assert not np.shares_memory(found, images)


@pytest.mark.parametrize(
    ("orientation", "bright"),
    [(1, "top"), (2, "top"), (3, "bottom"), (4, "bottom"), (5, "left"), (6, "right"), (7, "right"), (8, "left")],
)
def test_a_picture_is_turned_upright(tmp_path, orientation, bright):
    stored = np.zeros((8, 8), dtype=np.uint8)
    stored[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    found = read_image(tmp_path / "turned.png", 8, 1)[0][0]
    halves = {"top": found[:4], "bottom": found[4:], "left": found[:, :4], "right": found[:, 4:]}
    assert (halves[bright] == 255).all()
    assert found.mean() == 127.5


@pytest.mark.parametrize(
    ("mode", "size", "channels", "done"),
    [
        ("L", (8, 8), 1, []),
        ("RGB", (8, 8), 3, []),
        ("L", (8, 8), 3, ["converted from L to RGB"]),
        ("RGBA", (8, 8), 3, ["converted from RGBA to RGB"]),
        ("RGB", (8, 8), 1, ["converted from RGB to L"]),
        ("L", (9, 8), 1, ["resized to 8x8"]),
        ("CMYK", (40, 30), 3, ["converted from CMYK to RGB", "resized to 8x8"]),
    ],
)
def test_what_was_done_to_an_image_is_told(write_image, mode, size, channels, done):
    name = "image.tif" if mode == "CMYK" else "image.png"
    assert read_image(write_image(name, size, mode), 8, channels)[1] == done


@pytest.mark.parametrize(("orientation", "told"), [(0, False), (1, False), (3, True), (6, True), (9, False)])
def test_only_a_turned_picture_is_told(tmp_path, orientation, told):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (8, 8)).save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png", 8, 1)[1] == ["turned upright as its EXIF says"] * told


def test_16_bit_grey_keeps_its_gradation(tmp_path):
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    assert np.abs(read_image(tmp_path / "deep.png", 8, 1)[0][0] - ramp / 257).max() <= 1


@pytest.mark.parametrize("folder", ["Anna's photos", 'the "best"', "plain"])
def test_the_reason_does_not_repeat_the_path(tmp_path, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "broken.png").touch()
    assert refusal(tmp_path / folder / "broken.png") == "cannot identify image file"


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_an_unreadable_image_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    assert refusal(path) == "cannot identify image file"


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg"])
def test_a_truncated_image_is_named(write_image, name):
    path = write_image(name, (64, 64))
    path.write_bytes(path.read_bytes()[:-40])
    assert refusal(path).startswith("image file is truncated")


@pytest.mark.parametrize("error", [NotImplementedError("odd format"), MemoryError()])
def test_whatever_a_damaged_file_raises_is_a_reason(write_image, monkeypatch, error):
    def fail(path):
        raise error

    path = write_image("odd.png")
    monkeypatch.setattr(Image, "open", fail)
    assert refusal(path) == (str(error) or "MemoryError")


def test_warnings_about_metadata_are_not_shown(write_image, recwarn):
    path = write_image("odd.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\0")
    read_image(path, 8, 1)
    assert not recwarn.list


def test_a_folder_with_the_name_of_an_image_is_named(tmp_path):
    path = tmp_path / "folder.png"
    path.mkdir()
    assert refusal(path)


def test_an_image_of_absurd_size_is_named(write_image, monkeypatch):
    path = write_image("huge.png", (64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert refusal(path).startswith("Image size (4096 pixels) exceeds limit")


def test_an_image_with_damaged_exif_data_is_named(write_image):
    entries = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\x1a\x01\x02\0\x02\0\0\0a\0\0\0"  # turned; resolution "a"
    path = write_image("odd.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + bytes(4))
    assert refusal(path)
