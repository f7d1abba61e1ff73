"""Tiles: a convolutional network on an image of any size, part by part, so that its memory is bounded."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def in_tiles(net: Callable[[Tensor], Tensor], images: Tensor, *, tile: int, reach: int, scale: int = 1) -> Tensor:
    """`net(images)`, images (N, 3, H, W) enlarged by `scale`, computed for `tile` x `tile` of their pixels at a time.

    `reach` is how many pixels around a pixel its result depends on. A tile is given with as many more at each side,
    where the image has them, so the result is that of the whole image, without seams.
    """
    height, width = images.shape[-2:]
    if max(height, width) <= tile:
        return net(images)
    whole = images.new_empty((*images.shape[:2], scale * height, scale * width))
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            above, before = max(0, top - reach), max(0, left - reach)
            below, after = min(height, top + tile), min(width, left + tile)
            made = net(images[..., above : below + reach, before : after + reach])
            rows, columns = slice(scale * top, scale * below), slice(scale * left, scale * after)
            inner = made[..., scale * (top - above) :, scale * (left - before) :]
            whole[..., rows, columns] = inner[..., : rows.stop - rows.start, : columns.stop - columns.start]
    return whole
