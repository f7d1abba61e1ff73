"""What a step costs in bfloat16 against one in float32, on a thread of this machine's CPU."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from modtrain.bench.joint_step import build_worker, cpu_s, endless
from modtrain.scheduling.config import Config


def precision(
    recipe: Annotated[str, typer.Argument(help="Name, file or module of a recipe.")] = "latent-translation",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of both, one after the other.")] = 20,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each in a round.")] = 2,
) -> None:
    """Train jointly at the recipe's default size: CPU time in bfloat16 against float32, by turns."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="modtrain-bench-") as folder:
        full, lower = (
            build_worker(Path(folder, name), Config(recipe=recipe, device="cpu", precision=name))
            for name in ("float32", "bfloat16")
        )
        batches, full_s, lower_s = endless(full), list[float](), list[float]()
        for _ in range(rounds + 1):  # the first round is not measured
            some = [next(batches) for _ in range(steps)]
            full_s.append(cpu_s(full.train_on, some))
            lower_s.append(cpu_s(lower.train_on, some))
    typer.echo(f"{statistics.median(full_s[1:]) / steps * 1e3:8.1f} ms of CPU  a step in float32")
    typer.echo(f"{statistics.median(lower_s[1:]) / steps * 1e3:8.1f} ms of CPU  a step in bfloat16")
    ratios = [lower / full for full, lower in zip(full_s[1:], lower_s[1:], strict=True)]
    typer.echo(f"{statistics.median(ratios):8.3f}            median of the ratios of {rounds} rounds")
