"""How long the list of 1,000 runs takes: `python -m modtrain.bench.catalog [RUNS]`; not a test.

Each run has 3 modules of 100 checkpoints (100 lines in `published.jsonl`, the last 3 on disk), 200 lines of
`metrics.jsonl`, a heartbeat, and 10 evaluations. All are finished, but for 10 whose workers live.
"""

# ruff: noqa: T201
from __future__ import annotations

import json
import os
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path

from modtrain.monitoring.catalog import Catalog
from modtrain.storage.checkpoint import EMA, META, STATE, WEIGHTS, Checkpoint, fingerprint
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import Run, RunSpec

MODULES = ("encoder_decoder", "translator", "discriminator")
LIVE = 10
FILES = (WEIGHTS, EMA, STATE)


def main() -> None:
    """Print the figures."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        made = [make(Path(folder) / f"run-{number:04d}", live=number < LIVE) for number in range(runs)]
        print(f"made {runs} runs in {time.perf_counter() - begun:.1f} s")
        catalog, before = Catalog(Path(folder)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        look(catalog, "first look")
        for _ in range(3):
            look(catalog, "next look, nothing new but heartbeats")
        for run in made[:LIVE]:
            publish(run, 100)
        look(catalog, f"next look, {LIVE} runs published")
        for run in made[LIVE : 2 * LIVE]:
            (run.path / "stop").write_text("asked for")
        look(catalog, f"next look, {LIVE} runs were asked to stop")
        time.sleep(4)  # a folder that changed is listed again for a while
        for _ in range(3):
            look(catalog, "next look, later, nothing new")
        begun = time.perf_counter()
        text = json.dumps(catalog.rows())
        print(f"{'rows as JSON':<42} {(time.perf_counter() - begun) * 1e3:7.1f} ms, {len(text) / 1e6:.1f} MB")
        print(f"memory {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MB")


def look(catalog: Catalog, what: str) -> None:
    """One look, with its time, and the processor's: on a busy machine the two differ."""
    begun, cpu, revision = time.perf_counter(), time.process_time(), catalog.revision
    catalog.refresh()
    took_ms, cpu_ms = (time.perf_counter() - begun) * 1e3, (time.process_time() - cpu) * 1e3
    catalog.rows()
    rows_ms = (time.process_time() - cpu) * 1e3 - cpu_ms
    news = "news" if catalog.revision != revision else "no news"
    print(f"{what:<42} {took_ms:7.1f} ms ({cpu_ms:6.1f} ms of CPU), rows {rows_ms:5.1f} ms, {news}")


def make(path: Path, *, live: bool) -> Run:
    """A run's folder as workers leave it."""
    run = Run.create(path, RunSpec(recipe="demo", placement=[[m] for m in MODULES], epochs=100, created_at=time.time()))
    fill(run, live=live)
    return run


def fill(run: Run, *, live: bool) -> None:
    """What the workers of a run leave in its folder."""
    for module in MODULES:
        run.store(module).checkpoints.mkdir(parents=True)
        lines = [version(run, module, number).seal() for number in range(100)]
        (run.module_path(module) / "published.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        for number in (97, 98, 99):
            folder = run.store(module).folder(number)
            folder.mkdir()
            (folder / META).write_bytes(lines[number])
            for file in FILES:
                (folder / file).write_bytes(b"w")
        curve = [{"step": s, "epoch": s / 100, "lr": 1e-3, "at": 1e9 + s, "loss": 1 / (s + 1)} for s in range(200)]
        (run.module_path(module) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in curve))
        beat(run, module, "running" if live else "finished")
    (run.path / "evaluation").mkdir()
    judged = [
        {"versions": {}, "epochs": dict.fromkeys(MODULES, e), "metrics": {"ssim": e / 10, "psnr": e}} for e in range(10)
    ]
    (run.path / "evaluation" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in judged))


def version(run: Run, module: str, number: int) -> Checkpoint:
    """What a published version says of itself."""
    peers = {peer: {"versions": [number], "epoch": number} for peer in MODULES if peer != module}
    return Checkpoint(
        module=module,
        version=number,
        epoch=number,
        step=number * 100,
        full=True,
        final=number == 99,
        files=dict.fromkeys(FILES, fingerprint(b"w")),
        metrics={"loss": 0.5, "loss_adversarial": 0.25},
        peers=peers,
        writer="a" * 32,
        published_at=1e9 + number,
    )


def publish(run: Run, number: int) -> None:
    """One more version of every module."""
    for module in MODULES:
        with (run.module_path(module) / "published.jsonl").open("ab") as file:
            file.write(version(run, module, number).seal() + b"\n")
        beat(run, module, "running", step=number)


def beat(run: Run, module: str, state: str, step: int = 9900) -> None:
    """A heartbeat of this very process."""
    pid = os.getpid()
    says = {"host": socket.gethostname(), "pid": pid, "started": process_started(pid), "job": None, "state": state}
    says |= {"epoch": 99, "step": step, "steps": 10000, "left_s": 10.0, "counter": step, "at": time.time()}
    says |= {"steps_per_s": 10.0, "losses": {module: {"loss": 0.5}}}
    (run.module_path(module) / "heartbeat.json").write_text(json.dumps(says))


if __name__ == "__main__":
    main()
