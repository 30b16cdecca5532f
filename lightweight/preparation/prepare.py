"""Preparation of a data set: images from any source, of one size, stored and split so that class shares stay equal."""

import math
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from lightweight.core.errors import bad_param
from lightweight.core.files import user_path
from lightweight.data.dataset import Dataset
from lightweight.preparation.assembly import assemble, load_images
from lightweight.preparation.downloads import PUBLISHED_IMAGES, read_published
from lightweight.preparation.image_folder import FolderSource
from lightweight.preparation.packing import LIMITS, Limits, Packer
from lightweight.preparation.params import PrepareParams
from lightweight.preparation.reading import read_chunks
from lightweight.preparation.requirements import Requirements, estimate, require
from lightweight.preparation.source import ArraySource, Source


def open_source(params: PrepareParams, raw: Path, root: Path) -> Source:
    """Open the source that `params` names: images in `raw` or downloaded into it, or a folder relative to `root`.

    Raises InputError that names the file to mend or to put in place.
    """
    if params.dataset != "folder":
        images, classes = read_published(params.dataset, raw)
        return ArraySource(images, classes, params.image_size, params.channels, params.resizing)
    if not params.path:
        raise bad_param("prepare.path", params.path, "the data set 'folder' needs the path of an image folder")
    return FolderSource(user_path(root, params.path), params.image_size, params.channels, params.resizing)


def expect(params: PrepareParams, root: Path) -> tuple[Requirements, tuple[str, ...]]:
    """Estimate what section `prepare` will take, and return the classes; a published data set is not looked at.

    Raises InputError for a folder that is missing or holds no images in classes.
    """
    if params.dataset == "folder":
        source = open_source(params, Path(), root)
        return estimate(source, params.storage), source.classes
    images, shape = PUBLISHED_IMAGES[params.dataset], (params.channels, params.image_size, params.image_size)
    return require(images, shape, params.storage, images * math.prod(shape)), tuple("0123456789")


def read_dataset(
    params: PrepareParams,
    source: Source,
    seed: int,
    folder: Path,
    log: Callable[[str], object] = str,
    limits: Limits = LIMITS,
) -> Dataset:
    """Read all images of a source into shards in `folder`, and go on there where an interrupted run has stopped.

    A small data set is returned in memory. What was skipped and converted is added to the findings of the source.
    Raises InputError, and OSError for a full disk.
    """
    packer, total = Packer(folder, limits.shard_bytes, log), len(source.labels)
    if packer.packed.last:
        place = f"image {packer.packed.last + 1:,} of {total:,}" if packer.packed.last < total else "the end"
        log(f"Resuming prepare at {place}")
    with tqdm(total=total, initial=packer.packed.last, leave=False, unit="image", disable=None) as progress:
        for chunk in read_chunks(source, params.storage, packer.packed.last):
            packer.append(chunk)
            progress.update(chunk.last - progress.n)
    shards = packer.finish()
    source.add_findings(packer.packed.findings())
    dataset = assemble(params, source, packer.packed, shards, folder, seed)
    small = params.storage == "pixels" and sum(shard.size_bytes for shard in shards) <= limits.one_file_bytes
    return load_images(dataset) if small else dataset
