"""Which class an image shows, by logits and by its distance to what it would be as each class."""

from __future__ import annotations

import math

import torch

from modtrain.metrics.identification import accuracy, class_shares, coverage, nearest_candidate


def test_accuracy_is_the_share_of_known_images_whose_largest_logit_is_at_their_label() -> None:
    logits = torch.tensor([[3.0, 1.0], [0.0, 1.0], [5.0, 1.0], [0.0, 9.0]])
    assert math.isclose(float(accuracy(logits, torch.tensor([0, 1, 1, -1]))), 2 / 3, rel_tol=1e-6)
    assert math.isnan(accuracy(logits, torch.full((4,), -1)))


def test_an_image_shows_the_class_whose_picture_of_the_scene_is_nearest_also_at_a_smaller_size() -> None:
    torch.manual_seed(0)
    candidates = torch.randint(0, 256, (3, 4, 3, 4, 4), dtype=torch.uint8)
    shown = torch.tensor([2, 0, 3])
    images = candidates[torch.arange(3), shown] / 127.5 - 1
    images = images.repeat_interleave(2, 2).repeat_interleave(2, 3) + 0.1 * torch.randn(3, 3, 8, 8)
    distances = nearest_candidate(images, candidates)
    assert distances.argmax(1).tolist() == shown.tolist()
    assert -0.02 < float(distances.amax()) < 0


def test_a_class_is_covered_that_has_half_its_share_or_more() -> None:
    def logits(*counts: int) -> torch.Tensor:
        return torch.eye(len(counts)).repeat_interleave(torch.tensor(counts), 0)

    uniform = logits(10, 10, 10, 10)
    assert class_shares(logits(1, 0, 3, 0)).tolist() == [0.25, 0, 0.75, 0]
    assert coverage(uniform, uniform) == 4
    assert coverage(logits(40, 40, 15, 5), uniform) == 3
    assert coverage(logits(50, 50, 0, 0), uniform) == 2
    assert coverage(logits(10, 10, 10, 10), logits(90, 10, 0, 0)) == 1, "what the reference lacks does not count"
