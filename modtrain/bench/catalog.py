"""What the list of all runs costs: the first scan of a folder, and the scans that keep it up to date."""

from __future__ import annotations

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from modtrain.bench.sample_runs import make_all, publish
from modtrain.monitoring.catalog import Catalog

LIVE = 10
SETTLING_S = 4.0
"""A folder that has just changed is listed at every scan for this long."""


def catalog(
    runs: Annotated[int, typer.Option(min=2 * LIVE, help="Runs in the folder, each with 3 modules.")] = 1000,
) -> None:
    """Scan a folder of runs: at first, again, after 10 of them have published, and after 10 stop requests."""
    with tempfile.TemporaryDirectory(prefix="modtrain-bench-") as folder:
        samples = make_all(Path(folder), runs, live=LIVE)
        scanned, memory_kb = Catalog(Path(folder)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        scan(scanned, "first scan")
        scanned.refresh(thorough=True)  # the first scan may have had no time for curves, and alarms appear with them
        for _ in range(3):
            scan(scanned, "next scan, only heartbeats are new")
        for run in samples[:LIVE]:
            publish(run, 100)
        scan(scanned, f"next scan, {LIVE} runs have published")
        for run in samples[LIVE : 2 * LIVE]:
            run.request_stop("measured")
        scan(scanned, f"next scan, {LIVE} runs have a stop request")
        time.sleep(SETTLING_S)
        for _ in range(3):
            scan(scanned, f"next scan, {SETTLING_S:.0f} s later, nothing is new")
        begun = time.perf_counter()
        text = json.dumps(scanned.rows())
        typer.echo(f"{'rows as JSON':<42} {(time.perf_counter() - begun) * 1e3:7.1f} ms, {len(text) / 1e6:.1f} MB")
        memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kb
        typer.echo(f"{'memory':<42} {memory_kb / 1024:7.0f} MB")


def scan(scanned: Catalog, what: str) -> None:
    """Scan once and print wall time and CPU time, which differ on a busy machine."""
    begun, cpu_begun, revision = time.perf_counter(), time.process_time(), scanned.revision
    scanned.refresh()
    took_ms, cpu_ms = (time.perf_counter() - begun) * 1e3, (time.process_time() - cpu_begun) * 1e3
    changed = "changed" if scanned.revision != revision else "unchanged"
    typer.echo(f"{what:<42} {took_ms:7.1f} ms ({cpu_ms:6.1f} ms of CPU), {changed}")
