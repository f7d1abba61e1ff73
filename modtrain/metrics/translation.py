"""Metrics of an image translation whose true result is known: what has to change is inside a mask."""

from __future__ import annotations

from torch import Tensor

from modtrain.metrics.full_reference import psnr, ssim


def translation_metrics(source: Tensor, translated: Tensor, truth: Tensor, mask: Tensor) -> dict[str, float]:
    """PSNR inside the mask, beside the baseline of the untouched source, and PSNR and SSIM of what should stay."""
    return {
        "translation_psnr": psnr(translated, truth, mask),
        "untouched_psnr": psnr(source, truth, mask),
        "background_psnr": psnr(translated, source, ~mask),
        "background_ssim": ssim(translated, source, ~mask),
    }
