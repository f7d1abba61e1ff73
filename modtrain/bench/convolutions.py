"""What a step of Progressive GAN costs by resolution, with dense and separable convolutions, and with each penalty.

Karwande et al., figure 2.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from modtrain.storage.manifest import create_output

KINDS = {"dense": "#c0392b", "separable": "#2c5fa8"}
"""With the colours of the paper's figure."""
HEIGHT, WIDTH, MARGIN = 360, 640, 60
"""Pixels of the figure."""


def convolutions(
    size: Annotated[int, typer.Option(min=4, help="The largest edge of the images.")] = 32,
    base: Annotated[int, typer.Option(min=2, help="Twice the channels at 4 pixels.")] = 256,
    most: Annotated[int, typer.Option(min=1, help="Channels at most.")] = 64,
    batch: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 32,
    penalty: Annotated[str, typer.Option(help="wgan-gp or r1, which is that of a lazy step.")] = "wgan-gp",
    steps: Annotated[int, typer.Option(min=1, help="Steps of which the median is taken.")] = 5,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="File of a figure (PNG).")] = None,
) -> None:
    """Train Progressive GAN jointly at each size, on one thread: CPU time and multiply-accumulates of both kinds."""
    import torch

    if out is not None:
        create_output(out.parent, "The folder of --out,")
    torch.set_num_threads(1)
    sizes = [4 << level for level in range(size.bit_length() - 2)]
    edge = max(16, size)
    params = {"base": base, "most": most, "batch_size": batch, "crop_size": edge, "load_size": edge}
    given = {**params, "discriminator": {"penalty": penalty}}
    typer.echo(f"{'':24}{'ms of CPU a step':>24}{'':6}{'10^6 MAC an image':>26}")
    typer.echo(
        f"{'size':>6}"
        + "".join(f"{kind:>14}" for kind in KINDS)
        + f"{'ratio':>8}"
        + "".join(f"{kind:>14}" for kind in KINDS)
    )
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for edge in sizes:
        macs = list[float]()
        for kind in KINDS:
            milliseconds, passes = _cost(edge, kind, given, steps)
            found[kind].append(milliseconds)
            macs.append(passes)
        dense, separable = (found[kind][-1] for kind in KINDS)
        typer.echo(f"{edge:6}{dense:14.1f}{separable:14.1f}{dense / separable:8.2f}{macs[0]:14.2f}{macs[1]:14.2f}")
    if out is not None:
        figure(sizes, found, out)


def _cost(size: int, kind: str, params: Mapping[str, object], steps: int) -> tuple[float, float]:
    """Milliseconds of CPU of a joint step, and millions of multiply-accumulates of a forward pass of both networks."""
    import tempfile

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from modtrain.bench.joint_step import build_worker, cpu_s, endless
    from modtrain.nets.progressive import Growth, level_of
    from modtrain.scheduling.config import Config

    with tempfile.TemporaryDirectory(prefix="modtrain-bench-") as folder:
        config = Config(recipe="progressive-gan", params={**params, "size": size, "convolution": kind}, device="cpu")
        worker = build_worker(Path(folder, "run"), config)
        batches = endless(worker)
        seconds = [cpu_s(worker.train_on, [next(batches)]) for _ in range(steps + 1)]  # the first is not measured
        nets = {learner.name: learner.net for learner in worker.learners}
        growth, noise = Growth(level_of(size)), torch.zeros(1, worker.stage.params.noise_size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            nets["discriminator"](nets["generator"](noise, growth), growth)
    return statistics.median(seconds[1:]) * 1e3, counter.get_total_flops() / 2e6


def figure(sizes: Sequence[int], found: Mapping[str, Sequence[float]], out: Path) -> None:
    """Write a figure of bars: milliseconds of a step by size, one colour for each kind of convolution."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, top = ImageDraw.Draw(picture), max(map(max, found.values()))
    group = (WIDTH - 2 * MARGIN) / len(sizes)
    bar, ground = group / (len(found) + 1), HEIGHT - MARGIN
    for place, (kind, values) in enumerate(found.items()):
        colour = KINDS[kind]
        draw.rectangle((MARGIN + 130 * place, 14, MARGIN + 130 * place + 12, 26), fill=colour)
        draw.text((MARGIN + 130 * place + 18, 20), kind, fill="black", anchor="lm")
        for number, value in enumerate(values):
            left = MARGIN + number * group + (place + 0.5) * bar
            height = (ground - MARGIN) * value / top
            draw.rectangle((left, ground - height, left + bar - 2, ground), fill=colour)
            draw.text((left + bar / 2, ground - height - 4), f"{value:.0f}", fill="black", anchor="ms")
    draw.line((MARGIN / 2, ground, WIDTH - MARGIN / 2, ground), fill="black")
    for number, size in enumerate(sizes):
        draw.text((MARGIN + (number + 0.5) * group, ground + 8), f"{size} px", fill="black", anchor="mt")
    draw.text((WIDTH / 2, HEIGHT - 12), "milliseconds of CPU a joint step", fill="black", anchor="mm")
    picture.save(out)
