"""Folders of runs for measurements, written without training.

Each run has 3 modules of 100 checkpoints (100 lines in `published.jsonl`, the last 3 on disk), 200 lines of
`metrics.jsonl`, a heartbeat, and 10 evaluations.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import track

from modtrain.storage.checkpoint import EMA, META, STATE, WEIGHTS, Checkpoint, fingerprint
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import Run, RunSpec

MODULES = ("encoder_decoder", "translator", "discriminator")
FILES = (WEIGHTS, EMA, STATE)


def make_all(root: Path, count: int, *, live: int) -> list[Run]:
    """Create `root/run-0000`, `root/run-0001`, ...; the workers of the first `live` of them are training."""
    begun = time.perf_counter()
    numbers = track(range(count), description="writing runs", console=Console(stderr=True))
    runs = [make(root / f"run-{number:04d}", live=number < live) for number in numbers]
    took_s = time.perf_counter() - begun
    typer.echo(f"{count} runs written in {took_s:.1f} s, {count / took_s:.0f} runs/s")
    return runs


def make(path: Path, *, live: bool) -> Run:
    """Create a run of three modules and 100 epochs; `live`: its workers are training, else they have finished."""
    run = Run.create(path, RunSpec(recipe="demo", placement=[[m] for m in MODULES], epochs=100, created_at=time.time()))
    fill(run, live=live)
    return run


def fill(run: Run, *, live: bool) -> None:
    """Write into the folder of a run what its workers write."""
    for module in MODULES:
        run.store(module).checkpoints.mkdir(parents=True)
        lines = [version(run, module, number, final=not live and number == 99).seal() for number in range(100)]
        run.published_path(module).write_bytes(b"\n".join(lines) + b"\n")
        for number in (97, 98, 99):
            folder = run.store(module).folder(number)
            folder.mkdir()
            (folder / META).write_bytes(lines[number])
            for file in FILES:
                (folder / file).write_bytes(b"w")
        curve = [{"step": s, "epoch": s / 100, "lr": 1e-3, "at": 1e9 + s, "loss": 1 / (s + 1)} for s in range(200)]
        run.metrics_path(module).write_text("".join(json.dumps(line) + "\n" for line in curve))
        beat(run, module, "running" if live else "finished")
    (run.path / "evaluation").mkdir()
    evaluations = [
        {"versions": {}, "epochs": dict.fromkeys(MODULES, e), "metrics": {"ssim": e / 10, "psnr": e}} for e in range(10)
    ]
    run.evaluations_path.write_text("".join(json.dumps(line) + "\n" for line in evaluations))


def version(run: Run, module: str, number: int, *, final: bool = False) -> Checkpoint:
    """The metadata of one published version."""
    peers = {peer: {"versions": [number], "epoch": number} for peer in MODULES if peer != module}
    return Checkpoint(
        module=module,
        version=number,
        epoch=number,
        step=number * 100,
        full=True,
        final=final,
        files=dict.fromkeys(FILES, fingerprint(b"w")),
        metrics={"loss": 0.5, "loss_adversarial": 0.25},
        peers=peers,
        writer="a" * 32,
        published_at=1e9 + number,
    )


def publish(run: Run, number: int) -> None:
    """Publish version `number` of every module, without its files."""
    for module in MODULES:
        with run.published_path(module).open("ab") as file:
            file.write(version(run, module, number).seal() + b"\n")
        beat(run, module, "running", step=number)


def beat(run: Run, module: str, state: str, step: int = 9900) -> None:
    """Write a heartbeat that names this process, so that it counts as alive while this process runs."""
    pid = os.getpid()
    content = {"host": socket.gethostname(), "pid": pid, "started": process_started(pid), "job": None, "state": state}
    content |= {"epoch": 99, "step": step, "steps": 10000, "left_s": 10.0, "counter": step, "at": time.time()}
    content |= {"steps_per_s": 10.0, "losses": {module: {"loss": 0.5}}}
    run.heartbeat_path(module).write_text(json.dumps(content))
