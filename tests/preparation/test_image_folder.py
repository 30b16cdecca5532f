import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightweight.core.errors import InputError
from lightweight.preparation.findings import Findings, describe_findings
from lightweight.preparation.image_folder import READS_HEIF, SUFFIX_LIST, FolderSource
from lightweight.preparation.images import MAX_BYTES, LabelledImages


def read_image_folder(path: Path, size: int, channels: int) -> tuple[dict[str, LabelledImages], list[str], Findings]:
    """The images and labels by split, the classes, and what was skipped and converted."""
    source = FolderSource(path, size, channels)
    images = list(source.read(range(len(source.files))))
    source.add_findings((number, finding) for number, image in enumerate(images) for finding in image.findings)
    readable = np.array([number for number, image in enumerate(images) if image.pixels is not None])
    source.check_readable(readable)
    parts = {}
    for name, inside in source.splits.items():
        numbers = [number for number in readable if number in inside]
        parts[name] = np.stack([images[number].pixels for number in numbers]), source.labels[numbers]
    return parts, list(source.classes), source.findings


def refusal(path) -> str:
    with pytest.raises(InputError) as error:
        read_image_folder(path, 8, 1)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_classes_are_sorted_and_images_follow_their_names(write_image, tmp_path):
    for name, value in {"dog/b.png": 3, "dog/a.png": 2, "cat/z.png": 1, "cat/B.PNG": 0}.items():
        write_image(name, value=value)
    parts, classes, findings = read_image_folder(tmp_path, 8, 1)
    images, labels = parts.pop("train")
    assert (parts, classes, findings.rows()) == ({}, ["cat", "dog"], [])
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert labels.tolist() == [0, 0, 1, 1]
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("channels", [1, 3])
def test_mixed_sizes_formats_and_modes_become_one_array(write_image, tmp_path, channels):
    write_image("a/grey.png", (8, 8), "L", 255)
    write_image("a/wide.jpg", (40, 9), "RGB", (255, 255, 255))
    write_image("b/tall.jpeg", (3, 50), "L", 255)
    write_image("b/clear.png", (20, 20), "RGBA", (255, 255, 255, 255))
    images, labels = read_image_folder(tmp_path, 8, channels)[0]["train"]
    assert images.shape == (4, channels, 8, 8)
    assert (images == 255).all()
    assert labels.tolist() == [0, 0, 1, 1]


def test_other_files_and_hidden_folders_are_no_images(write_image, tmp_path):
    for name in ("a/1.png", "b/1.png", ".cache/1.png"):
        write_image(name)
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "README.md").write_text("x")
    parts, classes, findings = read_image_folder(tmp_path, 8, 1)
    assert classes == ["a", "b"]
    assert len(parts["train"][1]) == 2
    assert [row["paths"] for row in findings.rows()] == ["a/notes.txt", "README.md"]


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_a_gif_is_an_image(tmp_path, mode):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8), 90).convert(mode).save(tmp_path / name / "1.GIF")
    images, labels = read_image_folder(tmp_path, 8, 1)[0]["train"]
    assert (images == 90).all()
    assert labels.tolist() == [0, 1]


def test_every_kind_of_what_is_skipped_has_a_line_in_the_terminal(write_image, tmp_path):
    for name in (
        "train/a/1.png",
        "train/b/1.png",
        "test/a/1.png",
        "test/b/1.png",
        "train/a/more.png/2.png",
        "old/3.png",
    ):
        write_image(name)
    for name in ("train/a/1.TXT", "train/b/2.txt", "train/a/photo.avif", "test/b/README", "labels.csv", "train/4.png"):
        (tmp_path / name).write_text("x")
    (tmp_path / "train/.DS_Store").write_text("x")
    (tmp_path / "train/b/broken.png").write_text("x")
    lines = describe_findings(read_image_folder(tmp_path, 8, 1)[2].rows())
    nested = "a folder in a class folder; only images directly in the class folder are read"
    assert lines == [
        f"prepare  1 skipped: .avif is none of {SUFFIX_LIST}: train/a/photo.avif",
        f"prepare  2 skipped: .txt is none of {SUFFIX_LIST}: train/a/1.TXT; train/b/2.txt",
        "prepare  1 skipped: a file beside the class folders: train/4.png",
        "prepare  1 skipped: a file beside train and test: labels.csv",
        f"prepare  1 skipped: a file without a suffix is none of {SUFFIX_LIST}: test/b/README",
        "prepare  1 skipped: a folder beside train and test: old",
        f"prepare  1 skipped: {nested}: train/a/more.png",
        "prepare  1 skipped: cannot identify image file: train/b/broken.png",
    ]


@pytest.mark.skipif(READS_HEIF, reason="pillow-heif is installed")
@pytest.mark.parametrize("suffix", [".heic", ".HEIF"])
def test_a_photograph_of_a_phone_says_what_to_install(write_image, tmp_path, suffix):
    for name in ("a/1.png", "b/1.png"):
        write_image(name)
    (tmp_path / f"a/2{suffix}").write_bytes(b"x")
    reason = f"{suffix.lower()} is read where pillow-heif is installed: pip install pillow-heif"
    findings = read_image_folder(tmp_path, 8, 1)[2]
    assert findings.rows() == [{"finding": f"skipped: {reason}", "images": 1, "paths": f"a/2{suffix}"}]
    (tmp_path / "a/1.png").unlink()
    assert refusal(tmp_path).endswith(f"; skipped: {reason}")


def test_transparent_images_are_told(write_image, tmp_path):
    write_image("a/clear.png", (8, 8), "RGBA", (0, 0, 0, 0))
    write_image("b/whole.png", (8, 8), "RGBA", (0, 0, 0, 255))
    parts, _, findings = read_image_folder(tmp_path, 8, 3)
    assert parts["train"][0][:, 0, 0, 0].tolist() == [255, 0]
    assert describe_findings(findings.rows()) == [
        "prepare  1 image composited on white: a/clear.png",
        "prepare  2 images converted from RGBA to RGB: a/clear.png; b/whole.png",
    ]


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "val", "test")])
def test_split_folders_stay_split(write_image, tmp_path, splits):
    for value, split in enumerate(splits):
        for name in ("b", "a"):
            write_image(f"{split}/{name}/1.png", value=value)
    parts, classes, _ = read_image_folder(tmp_path, 8, 1)
    assert (tuple(parts), classes) == (splits, ["a", "b"])
    for value, (images, labels) in enumerate(parts.values()):
        assert (images == value).all()
        assert labels.tolist() == [0, 1]


def test_a_missing_folder_is_named_with_its_key(tmp_path):
    path = tmp_path / "nowhere"
    assert refusal(path) == f"params.yaml: prepare.path = {str(path)!r}: no such folder"


def test_a_file_is_no_folder(write_image):
    path = write_image("1.png")
    assert refusal(path) == f"params.yaml: prepare.path = {str(path)!r}: no such folder"


@pytest.mark.parametrize("number", [0, 1])
def test_one_class_is_not_enough(write_image, tmp_path, number):
    for index in range(number):
        write_image(f"{index}/1.png")
    assert refusal(tmp_path) == f"{tmp_path}: must hold at least two class folders, found {number}"


@pytest.mark.parametrize("content", [None, b"not an image"])
def test_a_class_without_a_readable_image_is_named(write_image, tmp_path, content):
    write_image("a/1.png")
    (tmp_path / "b").mkdir()
    if content:
        (tmp_path / "b/1.png").write_bytes(content)
    rule = f"no readable image: must hold at least one {SUFFIX_LIST}"
    found = "; skipped: cannot identify image file" if content else ""
    assert refusal(tmp_path) == f"{tmp_path / 'b'}: {rule}{found}"


def test_a_class_of_which_all_images_lie_deeper_says_so(write_image, tmp_path):
    write_image("a/1.png")
    write_image("b/more/1.png")
    assert refusal(tmp_path).startswith(f"{tmp_path / 'b'}: no readable image: ")
    assert refusal(tmp_path).endswith("; only images directly in the class folder are read")


def test_what_is_skipped_and_converted_is_told_with_its_path(write_image, tmp_path):
    for name in ("a/1.png", "b/1.png", "b/3.png"):
        write_image(name, (8, 8), "RGB")
    write_image("a/grey.png", (8, 8), "L")
    write_image("b/grey.jpg", (9, 8), "L")
    (tmp_path / "a/broken.png").write_bytes(b"not an image")
    (tmp_path / "b/notes.txt").write_text("x")
    parts, _, findings = read_image_folder(tmp_path, 8, 3)
    assert parts["train"][1].tolist() == [0, 0, 1, 1, 1]
    assert findings.rows() == [
        {"finding": "converted from L to RGB", "images": 2, "paths": "a/grey.png; b/grey.jpg"},
        {"finding": "resized to 8x8", "images": 1, "paths": "b/grey.jpg"},
        {"finding": f"skipped: .txt is none of {SUFFIX_LIST}", "images": 1, "paths": "b/notes.txt"},
        {"finding": "skipped: cannot identify image file", "images": 1, "paths": "a/broken.png"},
    ]


def test_every_skipped_image_is_listed_and_the_first_ten_of_the_converted(write_image, tmp_path):
    for index in range(12):
        write_image(f"a/{index:02}.png", (9, 8))
        (tmp_path / f"a/broken{index:02}.png").write_bytes(b"not an image")
    write_image("b/1.png")
    resized, skipped = read_image_folder(tmp_path, 8, 1)[2].rows()
    assert resized["images"] == skipped["images"] == 12
    assert resized["paths"] == "; ".join(f"a/{index:02}.png" for index in range(10)) + "; ..."
    assert skipped["paths"] == "; ".join(f"a/broken{index:02}.png" for index in range(12))


@pytest.mark.parametrize(
    ("splits", "found"),
    [(["train"], "train"), (["test"], "test"), (["train", "val"], "train and val"), (["val", "test"], "val and test")],
)
def test_a_split_folder_needs_train_and_test(write_image, tmp_path, splits, found):
    for split in splits:
        for name in ("a", "b"):
            write_image(f"{split}/{name}/1.png")
    assert refusal(tmp_path) == f"{tmp_path}: has {found} but a split folder needs both train and test"


@pytest.mark.parametrize("split", ["val", "test"])
def test_classes_that_differ_from_those_of_train_are_named(write_image, tmp_path, split):
    for name in ("train/a", "train/b", "val/a", "val/b", "test/a", "test/b"):
        write_image(f"{name.replace('b', 'c') if name == f'{split}/b' else name}/1.png")
    rule = "its class folders must be the same as in train, these are not in both: b, c"
    assert refusal(tmp_path) == f"{tmp_path / split}: {rule}"


HOSTILE = """
import os, resource, sys
from pathlib import Path
from lightweight.preparation.image_folder import FolderSource
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, used + 2**27))
source = FolderSource(Path(sys.argv[1]), 8, 1)
findings = {finding for image in source.read(range(len(source.files))) for finding in image.findings}
print(*sorted(findings), sep=chr(10))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="bounds memory by /proc and RLIMIT_AS")
def test_hostile_files_are_skipped_and_listed_in_bounded_memory(write_image, tmp_path, start_python):
    for name in ("a/1.png", "b/1.png"):
        write_image(name)
    os.mkfifo(tmp_path / "a/pipe.png")
    (tmp_path / "a/device.png").symlink_to("/dev/zero")
    (tmp_path / "a/nowhere.png").symlink_to("nowhere")
    (tmp_path / "a/folder.png").mkdir()
    write_image("a/long.png")
    os.truncate(tmp_path / "a/long.png", MAX_BYTES + 1)
    Image.new("1", (9_600, 9_600)).save(tmp_path / "a/bomb.tif", compression="group4")
    Image.new("1", (100, 100)).save(tmp_path / "a/claim.bmp")
    with (tmp_path / "a/claim.bmp").open("r+b") as file:
        file.seek(18)
        file.write(struct.pack("<ii", 2**30, 2**30))
    process = start_python(HOSTILE, tmp_path)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert output.splitlines() == [
        "skipped: Image size (1152921504606846976 pixels) exceeds limit of 178956970 pixels, could be decompression "
        "bomb DOS attack.",
        "skipped: has 715,827,881 bytes, must have at most 715,827,880",
        "skipped: has 9600 x 9600 pixels, must have at most 89,478,485",
        "skipped: is no regular file",
    ]


def test_a_file_name_of_any_bytes_is_listed_as_text(write_image, tmp_path):
    for name in ("a/1.png", "b/1.png"):
        write_image(name)
    (tmp_path / "a/line\nbreak.txt").touch()
    (tmp_path / os.fsdecode(b"a/byte\xff.txt")).touch()
    (row,) = read_image_folder(tmp_path, 8, 1)[2].rows()
    assert row["paths"] == "a/byte\\udcff.txt; a/line\\nbreak.txt"


@pytest.mark.parametrize("name", [b"line\nbreak", b"byte\xff"])
def test_a_class_whose_name_is_no_text_is_refused(write_image, tmp_path, name):
    write_image("a/1.png")
    (tmp_path / os.fsdecode(name)).mkdir()
    line = f"{tmp_path}: the name of a class must be printable text: {os.fsdecode(name)!r}"
    assert refusal(tmp_path) == line


def test_the_identity_of_a_folder_is_that_of_its_files(write_image, tmp_path):
    path = write_image("a/1.png")
    write_image("b/1.png")
    found = [FolderSource(tmp_path, 8, 1).identity() for _ in range(2)]
    assert found[0] == found[1]
    os.utime(path, ns=(0, 0))
    found.append(FolderSource(tmp_path, 8, 1).identity())
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(0, 0))
    found.append(FolderSource(tmp_path, 8, 1).identity())
    path.rename(path.with_name("2.png"))
    found.append(FolderSource(tmp_path, 8, 1).identity())
    assert len(set(found)) == 4
