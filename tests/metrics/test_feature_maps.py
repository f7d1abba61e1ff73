"""Networks whose feature maps are compared: their layers, their gradients, and the files that are taken for weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.errors import InputError
from modtrain.metrics import feature_maps
from modtrain.metrics.efficientnet import load_efficientnet
from modtrain.metrics.feature_maps import feature_network, perceptual_distances, weights_file
from modtrain.metrics.orchard import trained_judge


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def loaded(name: str) -> nn.Module:
    return feature_network(name).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("orchard", (32, 32, 32)), ("efficientnet-lite0", (40, 8, 8)), ("vgg19:x.pth", (512, 4, 4))],
)
def test_gradients_pass_to_the_images_of_any_size(name: str, shape: tuple[int, ...], images: Tensor) -> None:
    network, given = loaded(name), images.requires_grad_()
    features = network(given)
    assert features.shape == (2, *shape)
    features.square().sum().backward()
    assert given.grad is not None
    assert bool(given.grad.any())
    assert network(images[..., :48, :32]).shape[1] == shape[0]


def test_the_layers_are_the_first_ones_of_the_networks_that_measure_sets_of_images(images: Tensor) -> None:
    judge = trained_judge()[0].eval()
    torch.testing.assert_close(loaded("orchard")(images), judge.convolutions[:6](images))
    whole = load_efficientnet()[0].network.eval()
    seen = list[Tensor]()
    whole._blocks[4].register_forward_hook(lambda module, given, made: seen.append(made))
    with torch.no_grad():
        whole.extract_features(((images + 1) * 127.5 - 127) / 128)
    torch.testing.assert_close(loaded("efficientnet-lite0")(images), seen[0])


def test_vgg19_has_the_names_and_sizes_of_torchvisions_network_and_gives_what_the_paper_compares(
    images: Tensor,
) -> None:
    net = loaded("vgg19:x.pth")
    numbers = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    assert list(net.state_dict()) == [f"features.{number}.{kind}" for number in numbers for kind in ("weight", "bias")]
    assert sum(weight.numel() for weight in net.parameters()) == 20_024_384
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    maps = ((images + 1) / 2 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    weights = net.state_dict()
    for number in numbers:
        if number in (5, 10, 19, 28):
            maps = F.max_pool2d(maps, 2)
        maps = F.relu(
            F.conv2d(maps, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1)
        )
    torch.testing.assert_close(net(images), maps / 12.75)


def test_a_file_of_other_weights_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "vgg19.pth"
    with pytest.raises(InputError, match=r"vgg19\.pth cannot be read: No such file or directory\. It must be torchv"):
        weights_file(f"vgg19:{file}")
    file.write_bytes(b"weights")
    begins = hashlib.sha256(b"weights").hexdigest()[:8]
    with pytest.raises(InputError, match=f"its SHA-256 begins with {begins} instead of dcbb9e9d"):
        weights_file(f"vgg19:{file}")
    assert weights_file(f"vgg19:{file}", begins) == file
    assert weights_file("orchard") is weights_file("efficientnet-lite0") is None


@pytest.mark.parametrize("name", ["", "vgg19", "orchard:file", "vgg16:file"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="there are orchard, efficientnet-lite0, vgg19:PATH"):
        feature_maps.check_name(name)


def test_the_distance_is_that_of_the_directions_of_features() -> None:
    one = torch.tensor([[3.0, 0.0], [0.0, 5.0]]).view(2, 2, 1, 1)
    other = torch.tensor([[7.0, 0.0], [2.0, 0.0]]).view(2, 2, 1, 1)
    assert perceptual_distances(nn.Identity(), one, other).tolist() == pytest.approx([0.0, 2.0])
    assert perceptual_distances(nn.Identity(), one, -one).tolist() == pytest.approx([4.0, 4.0])
