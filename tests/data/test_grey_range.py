"""Grey images with more than 8 bits: the range that a file declares, that is given, or that is assumed and said."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from modtrain.data.decoding import decode, read_rgb
from modtrain.data.images import find, load
from modtrain.data.unpaired import unpaired
from modtrain.errors import InputError
from modtrain.recipes.latent_translation import Params, recipe
from modtrain.recipes.params import as_values, build_params, parameters

STEPS: NDArray[Any] = np.linspace(0, 1, 16).reshape(4, 4)


def saved(path: Path, values: NDArray[Any], **tags: Any) -> Path:
    Image.fromarray(values).save(path, **({"tiffinfo": tags["tags"]} if tags else {}))
    return path


def grey(path: Path, grey_range: tuple[float, float] | None = None) -> list[int]:
    """The first and the last pixel, and one between."""
    values = np.asarray(read_rgb(path, grey_range))[..., 0].ravel()
    return [int(values[0]), int(values[5]), int(values[-1])]


@pytest.mark.parametrize(
    ("values", "suffix", "seen", "given"),
    [
        ((STEPS * 4095).astype(np.uint16), "tif", "0 to 4095", (0, 4095)),
        ((STEPS * 4095).astype(np.uint16), "png", "0 to 4095", (0, 4095)),
        ((STEPS * 255).astype(np.float32), "tif", "0 to 255", (0, 255)),
        ((STEPS * 255).astype(np.int32), "tif", "0 to 255", (0, 255)),
        ((STEPS * 2 - 1).astype(np.float32), "tif", "-1 to 1", (-1, 1)),
    ],
)
def test_an_image_of_another_range_is_named_and_the_range_can_be_given(
    values: NDArray[Any],
    suffix: str,
    seen: str,
    given: tuple[float, float],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = saved(tmp_path / f"deep.{suffix}", values)
    read_rgb(path)
    assert f"{path} has grey values from {seen} and declares no range" in caplog.text
    assert "--grey-range" in caplog.text
    caplog.clear()
    assert grey(path, given) == [0, 85, 255]
    assert caplog.text == ""


@pytest.mark.parametrize(
    "values", [(STEPS * 65535).astype(np.uint16), STEPS.astype(np.float32), np.zeros((4, 4), np.uint16)]
)
def test_the_usual_ranges_need_no_word(values: NDArray[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert grey(saved(tmp_path / "usual.tif", values)) in ([0, 85, 255], [0, 0, 0])
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("values", "tags"),
    [
        ((STEPS * 4095).astype(np.uint16), {280: 0, 281: 4095}),
        ((STEPS * 4095).astype(np.uint16), {281: 4095}),
        ((STEPS * 255).astype(np.float32), {340: 0.0, 341: 255.0}),
    ],
)
def test_the_range_that_a_tiff_declares_is_taken(
    values: NDArray[Any], tags: dict[int, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert grey(saved(tmp_path / "declared.tif", values, tags=tags)) == [0, 85, 255]
    assert caplog.text == ""


def test_twelve_bits_declare_their_range(tmp_path: Path) -> None:
    pixels = bytes([0x00, 0x0F, 0xFF])  # 0 and 4095
    fields = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 134), (277, 1), (278, 1), (279, 3)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in fields)
    head = b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4)
    (tmp_path / "12.tif").write_bytes(head.ljust(134, b"\0") + pixels)
    assert np.asarray(read_rgb(tmp_path / "12.tif"))[0, :, 0].tolist() == [0, 255]


def test_white_is_zero_where_the_file_says_so(tmp_path: Path) -> None:
    path = saved(tmp_path / "negative.tif", (STEPS * 65535).astype(np.uint16), tags={262: 0})
    assert grey(path) == [255, 170, 0]


def test_values_that_are_not_finite_are_black_and_an_image_of_nothing_else_is_broken(tmp_path: Path) -> None:
    values = STEPS.astype(np.float32)
    values[0, 1] = np.nan
    assert np.asarray(read_rgb(saved(tmp_path / "holes.tif", values)))[0, 1, 0] == 0
    with pytest.raises(InputError, match="no finite value"):
        read_rgb(saved(tmp_path / "nan.tif", np.full((4, 4), np.nan, np.float32)))


def test_a_folder_of_such_images_gets_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "cab":
        saved(tmp_path / f"{name}.tif", (STEPS * 4095).astype(np.uint16))
    pictures = load(find(tmp_path), 4)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{tmp_path / 'a.tif'} has grey values from 0 to 4095")
    assert caplog.messages[0].endswith("The same holds for 2 other files.")
    assert int(pictures[0].max()) < 20
    for kept in (1, 2**20):  # decoded for every batch, or once
        assert int(load(find(tmp_path), 4, grey_range=(0, 4095), memory_bytes=kept)[0].max()) == 255
    assert len(caplog.messages) == 1


def test_the_recipe_takes_the_range_as_a_parameter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / name).mkdir()
        saved(tmp_path / name / "deep.tif", (np.ones((24, 24)) * 4095).astype(np.uint16))
    sizes = {"batch_size": 1, "load_size": 24, "crop_size": 24}
    params = build_params(Params, sizes | {"grey_range": "0,4095"})
    assert as_values(params)["grey_range"] == [0, 4095]
    assert build_params(Params, as_values(params)) == params
    data = recipe.data(tmp_path, params)
    assert float(next(data.train.epoch(0, seed=0))["a"].min()) == 1.0
    assert float(data.test.a.min()) == 1.0
    assert caplog.text == ""
    unpaired(tmp_path, **sizes)
    assert caplog.text.count("has grey values") == 4
    assert "tuple[float, float] | null" in [parameter.type for parameter in parameters(Params)]


@pytest.mark.parametrize("value", ["5,5", "10,0", "0", "a,b", "0,1,2"])
def test_a_wrong_range_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="grey_range"):
        build_params(Params, {"grey_range": value})


def test_a_sound_png_with_a_large_text_is_not_broken(tmp_path: Path) -> None:
    """Of more than Pillow's limit for one text, and for all of them; with a profile as large."""
    picture = Image.new("RGB", (8, 8), (200, 100, 50))
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 3_000_000, zip=True)
    picture.save(tmp_path / "image.png", pnginfo=texts)
    assert decode(tmp_path / "image.png", 8)[:, 4, 4].tolist() == [200, 100, 50]
    content = (tmp_path / "image.png").read_bytes()
    (tmp_path / "image.png").write_bytes(content[:-30])
    with pytest.raises(InputError, match=r"image.png cannot be read"):
        decode(tmp_path / "image.png", 8)


def test_a_palette_png_with_a_large_text_keeps_its_transparency_and_orientation(tmp_path: Path) -> None:
    picture = Image.new("P", (16, 8))
    picture.putpalette([0, 0, 0, 200, 100, 50])
    picture.paste(1, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    texts = PngImagePlugin.PngInfo()
    texts.add(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 3_000_000))
    picture.save(tmp_path / "image.png", pnginfo=texts, exif=exif, transparency=0)
    turned = read_rgb(tmp_path / "image.png")
    assert turned.size == (8, 16)
    assert turned.getpixel((4, 2)) == (200, 100, 50)
