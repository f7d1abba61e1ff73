"""Image pool: a discriminator also sees fakes of earlier steps (Shrivastava et al. 2017, section 2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class ImagePool:
    """The memory of a discriminator's loss; CycleGAN keeps 50 images (Zhu et al. 2017, section 4).

    It draws from torch's default generator. `size` 0 keeps nothing.
    """

    def __init__(self, size: int = 50) -> None:
        self.size = size
        self._images: list[Tensor] = []

    def query(self, images: Tensor) -> Tensor:
        """Images (N, ...) to detached images of the same shape, each of them one of now or of an earlier call.

        While the pool fills up, each image is kept and returned. Then, with probability 1/2, an image takes the place
        of a random one in the pool, which is returned instead of it.
        """
        return torch.stack([self._query_one(image) for image in images.detach()])

    def _query_one(self, image: Tensor) -> Tensor:
        if len(self._images) < self.size:
            self._images.append(image.clone())
            return image
        if not self.size or torch.rand(()) < 0.5:
            return image
        index = int(torch.randint(self.size, ()))
        older, self._images[index] = self._images[index], image.clone()
        return older.to(image.device)

    def state_dict(self) -> dict[str, Any]:
        """The images, in their order."""
        return {"images": list(self._images)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with these images, which may be on another device than those to come."""
        self._images = list(state["images"])
