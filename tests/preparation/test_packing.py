"""An interrupted preparation goes on where its journal ends, and ends in the same bytes."""

import errno
import json
import os
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest

from lightweight.core.errors import InputError
from lightweight.data.dataset_file import load_dataset
from lightweight.data.image_codec import Storage
from lightweight.data.shards import Shard
from lightweight.preparation import assembly, reading, requirements
from lightweight.preparation.assembly import write_dataset
from lightweight.preparation.packing import HEADER_BYTES, JOURNAL, Packer
from lightweight.preparation.reading import read_chunks
from lightweight.preparation.requirements import check_requirements
from lightweight.preparation.source import ReadImage
from tests.storing import COLOURS, colour_source, store

SHARD_BYTES = 4_000


@pytest.fixture(autouse=True)
def few_images_per_chunk(monkeypatch):
    monkeypatch.setattr(reading, "CHUNK_BYTES", 3 * COLOURS[0].size)


def pack(folder: Path, stop: int = 10**6, storage: Storage = "png") -> list[Shard]:
    """Pack all images, or as many chunks as come before image `stop`, committed to the journal."""
    folder.mkdir(exist_ok=True)
    packer, source = Packer(folder, SHARD_BYTES), colour_source()
    for chunk in read_chunks(source, storage, packer.packed.last):
        if chunk.last > stop:
            packer.commit()
            packer.close()
            return []
        packer.append(chunk)
    return packer.finish()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}


@pytest.mark.parametrize("storage", ["pixels", "png", "jpeg"])
@pytest.mark.parametrize("stop", [0, 3, 6, 12, 39])
def test_going_on_gives_the_shards_of_an_uninterrupted_run(tmp_path, monkeypatch, storage, stop):
    expected = pack(tmp_path / "whole", storage=storage)
    assert len(expected) > 1
    pack(tmp_path / "parts", stop, storage)
    with (
        patch.object(reading, "encode", wraps=reading.encode) as encode,
        patch.dict(os.environ, LIGHTWEIGHT_WORKERS="0"),
    ):
        assert pack(tmp_path / "parts", storage=storage) == expected
    assert encode.call_count == 40 - stop // 3 * 3
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_what_was_written_after_the_last_record_is_cut_off(tmp_path):
    expected = pack(tmp_path / "whole")
    pack(tmp_path / "parts", 18)
    newest = max(tmp_path.glob("parts/*.safetensors"))
    with newest.open("ab") as file:
        file.write(b"half a chunk")
    journal = tmp_path / "parts" / JOURNAL
    last = json.loads(journal.read_text().splitlines()[-1])
    with journal.open("a") as file:
        file.write(json.dumps(last)[:40])
    assert pack(tmp_path / "parts") == expected
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_shard_that_was_begun_before_its_first_record_is_begun_anew(tmp_path):
    expected = pack(tmp_path / "whole")
    pack(tmp_path / "parts", 0)
    (tmp_path / "parts/0000.safetensors").write_bytes(b"x" * 3_000)
    assert pack(tmp_path / "parts") == expected
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_finished_run_is_described_again_without_touching_its_files(tmp_path):
    expected = pack(tmp_path / "whole")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("whole/*.safetensors")}
    assert pack(tmp_path / "whole") == expected
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_shards_are_bounded_and_hold_all_images_in_their_order(tmp_path):
    shards = pack(tmp_path / "whole", storage="pixels")
    assert sum(shard.images for shard in shards) == 40
    assert all(shard.size_bytes <= SHARD_BYTES for shard in shards)
    content = b"".join(file[HEADER_BYTES:] for file in contents(tmp_path / "whole").values())
    assert content == b"".join(image.transpose(2, 0, 1).tobytes() for image in COLOURS)


@pytest.mark.parametrize("storage", ["pixels", "png", "jpeg"])
def test_disk_and_memory_are_told_before_anything_is_read(tmp_path, storage):
    line = check_requirements(colour_source(), storage, tmp_path)
    assert line.startswith("prepare  40 images to 12x12: 0.0 MB on disk, about 0.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("storage", ["pixels", "png", "jpeg"])
def test_the_estimate_of_disk_is_near_what_is_written(tmp_path, storage, monkeypatch):
    pack(tmp_path / "whole", storage=storage)
    written = sum(len(content) - HEADER_BYTES for content in contents(tmp_path / "whole").values())
    monkeypatch.setattr(requirements, "format_size", lambda number: f"<{number}>")
    line = check_requirements(colour_source(), storage, shutil.copytree(tmp_path / "whole", tmp_path / "copy"))
    estimated = int(line.partition("<")[2].partition(">")[0])
    assert estimated == pytest.approx((1 + (storage == "pixels")) * written, rel=0.05)


def test_a_disk_that_is_too_small_is_one_line_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    folder = tmp_path / "prepare" / "run"
    folder.mkdir(parents=True)
    with pytest.raises(InputError) as error:
        check_requirements(colour_source(), "pixels", folder)
    rule = "0.0 MB are needed for 40 images, 0.0 MB are free; LIGHTWEIGHT_WORK names another folder"
    assert str(error.value) == f"{tmp_path / 'prepare'}: {rule}"


def damage_record(folder: Path) -> None:
    journal = folder / JOURNAL
    journal.write_text("{" + journal.read_text())


def add_record(folder: Path) -> None:
    with (folder / JOURNAL).open("a") as journal:
        journal.write("{}\n")


def flip_byte(folder: Path) -> None:
    content = bytearray((folder / "0000.safetensors").read_bytes())
    content[HEADER_BYTES + 100] ^= 1
    (folder / "0000.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        damage_record,
        add_record,
        flip_byte,
        lambda folder: (folder / "0000.safetensors").unlink(),
        lambda folder: os.truncate(folder / "0000.safetensors", HEADER_BYTES + 10),
    ],
)
@pytest.mark.parametrize("stop", [18, 10**6])
def test_a_damaged_scratch_folder_is_told_and_begun_anew(tmp_path, damage, stop):
    expected, lines = pack(tmp_path / "whole"), []
    pack(tmp_path / "parts", stop)
    damage(tmp_path / "parts")
    assert Packer(tmp_path / "parts", SHARD_BYTES, lines.append).packed.last == 0
    assert lines == [f"The interrupted run in {tmp_path / 'parts'} is damaged: prepare begins anew"]
    assert pack(tmp_path / "parts") == expected
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_shards_that_do_not_fit_on_the_disk_leave_none_behind(tmp_path, monkeypatch):
    dataset, full = store(tmp_path, "png", 2_500)[0], OSError(errno.ENOSPC, "No space left on device")
    stored = load_dataset(dataset)
    calls = iter([None, None, full])

    def link(source: Path, target: Path) -> None:
        if error := next(calls):
            raise error
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(assembly, "_link", link)
    with pytest.raises(OSError, match="No space left"):
        write_dataset(tmp_path / "other.safetensors", stored)
    assert list((tmp_path / "other").iterdir()) == []
    assert not (tmp_path / "other.safetensors").exists()


def test_what_is_packed_already_needs_no_more_room(tmp_path, monkeypatch):
    pack(tmp_path / "parts", storage="pixels")
    usage = shutil.disk_usage(tmp_path)._replace(free=20_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    check_requirements(colour_source(), "pixels", tmp_path / "parts")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="are needed"):
        check_requirements(colour_source(), "pixels", tmp_path / "empty")


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_read_by_as_many_processes_as_the_environment_says(monkeypatch, workers):
    monkeypatch.setenv("LIGHTWEIGHT_WORKERS", str(workers))
    source = colour_source()
    monkeypatch.setattr(source, "read", lambda numbers: (ReadImage(None, (str(os.getpid()),)) for _ in numbers))
    found = {finding for chunk in read_chunks(source, "pixels", 0) for _, finding in chunk.findings}
    assert found == {str(os.getpid())} if workers == 0 else len(found - {str(os.getpid())}) == workers
