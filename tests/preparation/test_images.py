import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lightweight.core.errors import InputError
from lightweight.data.resizing import Resizing
from lightweight.preparation import images
from lightweight.preparation.images import MAX_BYTES, MAX_PIXELS, composite, fit, fit_all, read_image

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
        ("RGBA", (8, 8), 3, ["composited on white", "converted from RGBA to RGB"]),
        ("LA", (8, 8), 1, ["composited on white", "converted from LA to L"]),
        ("RGB", (8, 8), 1, ["converted from RGB to L"]),
        ("L", (9, 8), 1, ["resized to 8x8"]),
        ("CMYK", (40, 30), 3, ["converted from CMYK to RGB", "resized to 8x8"]),
    ],
)
def test_what_was_done_to_an_image_is_told(write_image, mode, size, channels, done):
    name = "image.tif" if mode == "CMYK" else "image.png"
    assert read_image(write_image(name, size, mode), 8, channels)[1] == done


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_a_transparent_image_is_the_mean_of_its_colour_and_white_by_its_alpha(mode, channels):
    alpha = np.tile(np.arange(0, 256, 17, dtype=np.uint8), (16, 1))
    grey = np.full((16, 16, 3), 51, dtype=np.uint8)
    image = Image.fromarray(np.dstack([grey, alpha]))
    flat = fit(composite(image.convert(mode) if mode != "PA" else palette_with(alpha)), 16, channels)
    expected = 51 * (alpha / 255) + 255 * (1 - alpha / 255)
    assert np.abs(flat - expected).max() <= 0.5 + 1e-9


def palette_with(alpha: np.ndarray) -> Image.Image:
    image = Image.new("RGB", alpha.shape, (51, 51, 51)).quantize(2).convert("PA")
    image.putalpha(Image.fromarray(alpha))
    return image


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_the_transparent_colour_of_a_palette_becomes_white(tmp_path, kind):
    image = Image.fromarray(np.tile(np.array([0, 1], dtype=np.uint8), (8, 4)))
    image = image.convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "1.png", kind, transparency=1)
    found, changes = read_image(tmp_path / "1.png", 8, 3)
    assert found[:, 0, :2].T.tolist() == [[10, 20, 30], [255, 255, 255]]
    assert "composited on white" in changes


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 8, 9)), ("1", 0)])
def test_the_transparent_colour_of_a_png_becomes_white(tmp_path, mode, key):
    Image.new(mode, (8, 8), key).save(tmp_path / "1.png", transparency=key)
    assert (read_image(tmp_path / "1.png", 8, 1)[0] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_opaque_image_with_an_alpha_channel_keeps_its_pixels(mode, channels):
    image = Image.fromarray(NOISE[0]).convert(mode)
    assert composite(image) is image
    plain = Image.fromarray(NOISE[0]).convert(mode.removesuffix("A"))
    assert np.array_equal(fit(image, 7, channels), fit(plain, 7, channels))


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
    assert refusal(path) == "image file is truncated"


@pytest.mark.parametrize("error", [NotImplementedError("odd format"), MemoryError()])
def test_whatever_a_damaged_file_raises_is_a_reason(write_image, monkeypatch, error):
    def fail(path, **options):
        raise error

    path = write_image("odd.png")
    monkeypatch.setattr(Image, "open", fail)
    assert refusal(path) == (str(error) or "MemoryError")


def test_warnings_about_metadata_are_not_shown(write_image, recwarn):
    path = write_image("odd.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\0")
    read_image(path, 8, 1)
    assert not recwarn.list


@pytest.mark.parametrize("target", ["folder", "pipe", "nowhere", "itself", "/dev/zero"])
def test_only_a_regular_file_is_opened(tmp_path, target):
    path = tmp_path / "odd.png"
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path.symlink_to(path if target == "itself" else tmp_path / target)
    assert refusal(path) == "is no regular file"


def test_a_link_to_an_image_is_read(write_image, tmp_path):
    (tmp_path / "link.png").symlink_to(write_image("whole.png", value=7))
    assert (read_image(tmp_path / "link.png", 8, 1)[0] == 7).all()


def test_a_file_of_absurd_size_is_refused_unread(write_image):
    path = write_image("huge.png")
    os.truncate(path, MAX_BYTES + 1)  # which takes no space on the disk
    assert refusal(path) == "has 715,827,881 bytes, must have at most 715,827,880"


def test_an_image_of_too_many_pixels_is_refused_by_its_header(write_image, monkeypatch):
    path = write_image("large.png", (64, 64))
    monkeypatch.setattr(images, "MAX_PIXELS", 4095)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", None)  # nothing is decoded
    assert refusal(path) == "has 64 x 64 pixels, must have at most 4,095"
    monkeypatch.undo()
    monkeypatch.setattr(images, "MAX_PIXELS", 4096)
    assert read_image(path, 8, 1)


def png(width: int, height: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A grey picture of one bit per pixel, all zero, behind the extra chunks."""
    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
        *extra,
        (b"IDAT", pixels),
        (b"IEND", b""),
    )
    sums = (struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks)
    packed = (
        struct.pack(">I", len(body)) + name + body + check for (name, body), check in zip(chunks, sums, strict=True)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_a_small_file_that_holds_a_huge_picture_is_refused(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(10_000, 9_000))
    assert path.stat().st_size < 20_000
    assert MAX_PIXELS < 10_000 * 9_000
    assert refusal(path) == "has 10000 x 9000 pixels, must have at most 89,478,485"


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (1, 2**31 - 1)])
def test_a_picture_that_claims_to_be_huge_is_refused(tmp_path, width, height):
    path = tmp_path / "claim.png"
    path.write_bytes(png(8, 8).replace(struct.pack(">II", 8, 8), struct.pack(">II", width, height)))
    content = bytearray(path.read_bytes())
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    path.write_bytes(content)
    assert refusal(path).startswith(f"Image size ({width * height} pixels) exceeds limit")


@pytest.mark.parametrize(
    ("name", "head", "fault"),
    [
        (b"zTXt", b"Comment\0\0", "Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK"),
        (b"iTXt", b"Comment\0\1\0\0\0", "Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK"),
    ],
)
def test_a_text_that_unpacks_to_megabytes_is_refused(tmp_path, name, head, fault):
    text = zlib.compress(bytes(2_000_000))
    (tmp_path / "text.png").write_bytes(png(8, 8, (name, head + text)))
    assert refusal(tmp_path / "text.png") == fault


def test_many_texts_are_refused_together(tmp_path):
    text = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1_000_000)))
    (tmp_path / "texts.png").write_bytes(png(8, 8, *[text] * 68))
    assert refusal(tmp_path / "texts.png").startswith("Too much memory used in text chunks")


def test_an_image_that_would_become_too_large_is_refused(write_image):
    path = write_image("long.png", (40_000, 1))
    assert read_image(path, 8, 1)
    with pytest.raises(InputError) as error:
        read_image(path, 8, 1, Resizing(64, "bilinear"))
    assert str(error.value) == "would have 2560000 x 64 pixels, must have at most 89,478,485"


def test_a_jpeg_of_very_many_scans_is_refused(write_image):
    path = write_image("scans.jpg", (64, 64), progressive=True)
    content = path.read_bytes()
    first, second = (content.index(b"\xff\xda", place) for place in (0, content.index(b"\xff\xda") + 1))
    assert read_image(path, 8, 1)
    path.write_bytes(content[:second] + content[first:second] * 495 + content[second:])
    assert refusal(path) == "has 501 scans, must have at most 500"
    path.write_bytes(content[:second] + content[first:second] * 494 + content[second:])
    assert read_image(path, 8, 1)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_only_the_first_frame_is_read(tmp_path, kind):
    frames = [Image.new("L", (8, 8), value) for value in range(0, 250, 2)]
    frames[0].save(tmp_path / "frames.png", kind, save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "frames.png") as image:
        assert image.n_frames > 40
    assert (read_image(tmp_path / "frames.png", 8, 1)[0] == 0).all()


def test_a_format_that_other_programs_decode_is_not_opened(tmp_path):
    path = tmp_path / "script.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with Image.open(path) as image:
        assert image.format == "EPS"
    assert refusal(path) == "cannot identify image file"


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "MPO", "PNG", "TIFF", "WEBP"])
def test_the_content_and_not_the_suffix_names_the_format(tmp_path, kind):
    Image.new("L", (8, 8), 255).save(tmp_path / "image.png", kind)
    assert (read_image(tmp_path / "image.png", 8, 1)[0] == 255).all()


def test_an_image_with_damaged_exif_data_is_named(write_image):
    entries = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\x1a\x01\x02\0\x02\0\0\0a\0\0\0"  # turned; resolution "a"
    path = write_image("odd.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + bytes(4))
    assert refusal(path)


@pytest.mark.parametrize(("times", "exact"), [(1, True), (2, True), (3, True), (4, False), (9, False)])
def test_a_jpeg_is_decoded_at_a_fraction_only_where_at_least_twice_the_size_is_left(tmp_path, times, exact):
    side = 32 * times
    waves = np.sin(np.arange(side)[:, None] / times / 3) * np.cos(np.arange(side) / times / 5)
    noise = np.random.default_rng(0).normal(0, 8, (side, side))
    Image.fromarray((128 + 90 * waves + noise).clip(0, 255).astype(np.uint8)).save(tmp_path / "1.jpg", quality=95)
    found, changes = read_image(tmp_path / "1.jpg", 32, 1)
    expected = fit(Image.open(tmp_path / "1.jpg"), 32, 1)
    assert np.array_equal(found, expected) == exact
    assert np.abs(found.astype(int) - expected).max() <= 6
    assert changes == ([] if times == 1 else ["resized to 32x32"])
