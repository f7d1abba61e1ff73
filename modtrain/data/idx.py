"""IDX files, the format of MNIST and Fashion-MNIST: images and labels as arrays of bytes, plain or in gzip files.

A file begins with two zero bytes, one for the type of its numbers and one for the number of dimensions; the length of
each dimension follows in four bytes, then the numbers.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from modtrain.data.decoding import Resize
from modtrain.errors import InputError, message_of

UNSIGNED_BYTE = 8
FILES = {"train": ("train-images", "train-labels"), "test": ("t10k-images", "t10k-labels")}
"""Beginnings of the names of the files of each split."""
MAX_BYTES = 2**31
"""A larger array is refused: these data sets are small, and the file is read as a whole."""


def idx_images(dataroot: Path, split: str) -> NDArray[np.uint8] | None:
    """Grey images (N, height, width) of `train` or `test`; None without the file. Raises InputError."""
    path = _find(dataroot, FILES[split][0], 3)
    return None if path is None else read_idx(path, 3)


def idx_labels(dataroot: Path, split: str) -> tuple[str, ...] | None:
    """The label of each image, a number; None without the file. Raises InputError."""
    path = _find(dataroot, FILES[split][1], 1)
    return None if path is None else tuple(map(str, read_idx(path, 1).tolist()))


def has_idx(dataroot: Path) -> bool:
    """Whether there are images to train on."""
    return _find(dataroot, FILES["train"][0], 3) is not None


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array in a file. Raises InputError where it is incomplete, of another type or of other dimensions."""
    try:
        with path.open("rb") as raw:
            return _array(gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw, dimensions)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else message_of(error)
        raise InputError(f"{path} cannot be read as an IDX file: {why}.") from error


def load_grey(images: NDArray[np.uint8], size: int, *, resize: Resize = "bicubic") -> Tensor:
    """Images (N, height, width) as RGB, uint8 (N, 3, size, size): in a black square, resized with Pillow.

    The side of the square is a power of two, so that 28 x 28 pixels are not resampled at a size of 32.
    """
    shape = images.shape[1:]
    side = 2 ** math.ceil(math.log2(max(shape)))
    top, left = ((side - length) // 2 for length in shape)
    square = np.zeros((len(images), side, side), np.uint8)
    square[:, top : top + shape[0], left : left + shape[1]] = images
    if side != size:
        edges, resample = (size, size), Image.Resampling[resize.upper()]
        square = np.stack([np.asarray(Image.fromarray(image).resize(edges, resample)) for image in square])
    return torch.from_numpy(square)[:, None].expand(-1, 3, -1, -1)


def _find(dataroot: Path, stem: str, dimensions: int) -> Path | None:
    """Such a file as its authors name it, or with a dot, as some copies do."""
    names = (f"{stem}{mark}idx{dimensions}-ubyte{suffix}" for suffix in ("", ".gz") for mark in "-.")
    return next((dataroot / name for name in names if (dataroot / name).is_file()), None)


def _array(file: BinaryIO | gzip.GzipFile, dimensions: int) -> NDArray[np.uint8]:
    head = file.read(4 + 4 * dimensions)
    if head[:2] != b"\0\0" or len(head) < 4:
        raise ValueError(f"it begins with {head[:4].hex(' ') or 'nothing'} instead of two zero bytes")
    if head[2] != UNSIGNED_BYTE:
        raise ValueError(f"its numbers are of type {head[2]:#04x}, and only unsigned bytes, 0x08, are read")
    if head[3] != dimensions:
        raise ValueError(f"it says that it has {head[3]} dimensions, and must have {dimensions}")
    if len(head) < 4 + 4 * dimensions:
        raise ValueError("it ends in its header; copy it again")
    shape = tuple(int.from_bytes(head[place : place + 4]) for place in range(4, len(head), 4))
    expected, size = math.prod(shape), " x ".join(map(str, shape))
    if not 0 < expected <= MAX_BYTES:
        raise ValueError(f"it says that it holds {size} numbers, and must have from 1 to {MAX_BYTES}")
    content = file.read(expected + 1)
    if len(content) != expected:
        found = "more" if len(content) > expected else f"only {len(content)}"
        raise ValueError(f"it says that it holds {size} numbers, and has {found}; copy it again")
    return np.frombuffer(content, np.uint8).reshape(shape)
