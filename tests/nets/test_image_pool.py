"""The image pool against CycleGAN's rule, written down by hand with the same draws."""

from __future__ import annotations

import pytest
import torch

from modtrain.nets.image_pool import ImagePool


def by_hand(pool: list[int], size: int, number: int) -> int:
    """CycleGAN's `ImagePool.query` of one image, on numbers that stand for images."""
    if size == 0:
        return number
    if len(pool) < size:
        pool.append(number)
        return number
    if float(torch.rand(())) >= 0.5:
        place = int(torch.randint(0, size, ()))
        old = pool[place]
        pool[place] = number
        return old
    return number


@pytest.mark.parametrize("size", [0, 1, 5])
def test_the_pool_returns_what_the_rule_of_cyclegan_returns(size: int) -> None:
    numbers = torch.arange(400.0)
    torch.manual_seed(3)
    kept: list[int] = []
    expected = [by_hand(kept, size, int(number)) for number in numbers]
    torch.manual_seed(3)
    pool = ImagePool(size)
    batches = [pool.query(batch.view(-1, 1, 1, 1).expand(-1, 3, 2, 2)) for batch in numbers.split(3)]
    returned = torch.cat(batches)
    assert returned.shape == (400, 3, 2, 2)
    assert returned[:, 0, 0, 0].int().tolist() == expected
    assert [int(image[0, 0, 0]) for image in pool.state_dict()["images"]] == kept
    older = sum(one != number for one, number in zip(expected, range(400), strict=True))
    assert older == 0 if size == 0 else 150 < older < 250, "about half"


def test_a_pool_keeps_values_of_its_own_and_goes_on_from_a_state_as_if_never_saved() -> None:
    pool, resumed = ImagePool(2), ImagePool(2)
    images = torch.ones(2, 3, 4, 4, requires_grad=True)
    assert not pool.query(images).requires_grad
    with torch.no_grad():
        images.zero_()
    assert all(image.eq(1).all() and image.untyped_storage().nbytes() == 3 * 16 * 4 for image in pool._images)
    resumed.load_state_dict(pool.state_dict())
    for one in (pool, resumed):
        torch.manual_seed(1)
        one.last = [one.query(torch.full((3, 3, 4, 4), float(step))) for step in range(5)]  # type: ignore[attr-defined]
    assert torch.equal(torch.cat(pool.last), torch.cat(resumed.last))  # type: ignore[attr-defined]
