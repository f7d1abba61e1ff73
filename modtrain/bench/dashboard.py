"""What the dashboard costs: `python -m modtrain.bench.dashboard [RUNS] [PAGES] [SECONDS] [TRIALS]`; not a test.

1,000 runs of 3 modules with 100 checkpoints each, as `catalog.py` makes them, and a sweep of 300 such runs, a
tenth of them live; a server of its own; then 50 open pages, half of all runs and half of one run, each with events,
that fetch the data whenever they are told, while that run publishes once a second. Everything on this machine, pages
and server together.
"""

# ruff: noqa: T201
from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from modtrain.bench.catalog import fill, make, publish
from modtrain.scheduling.config import Config
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep, new_sweep

BUSY = "run-0000"


def main() -> None:
    """Print the figures."""
    given = [int(word) for word in sys.argv[1:]]
    runs, pages, seconds, trials = [*given, *(1000, 50, 20, 300)[len(given) :]]
    with tempfile.TemporaryDirectory() as folder:
        made = [make(Path(folder) / f"run-{number:04d}", live=number < 10) for number in range(runs)]
        make_sweep(Path(folder) / "sweep", trials)
        print(f"{runs} runs, and a sweep of {trials}")
        command = [sys.executable, "-m", "modtrain", "dashboard", folder, "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            url = address_of(process)
            for what, address in (
                ("first page of all runs", ""),
                ("the same again", ""),
                ("its data, packed", "data/runs"),
                ("first page of a run", f"run/{BUSY}/"),
                ("the same again", f"run/{BUSY}/"),
                ("first page of another run", "run/run-0500/" if runs > 500 else f"run/{BUSY}/"),
                ("page of a checkpoint", f"checkpoint/{BUSY}/translator/99/"),
                ("first page of the sweep", "sweep/sweep/"),
                ("the same again", "sweep/sweep/"),
                ("plotly.min.js, packed", "static/plotly.min.js"),
            ):
                fetch(process, url, what, address)
            print(f"{'memory of the server':<34} {memory_mb(process.pid):7.0f} MB")
            cpu = cpu_s(process.pid)
            asyncio.run(open_pages(url, made[0], pages, seconds))
            print(f"{'memory of the server':<34} {memory_mb(process.pid):7.0f} MB")
            print(f"{'processor of the server':<34} {cpu_s(process.pid) - cpu:7.1f} s of {seconds} s")
        finally:
            process.kill()
            process.communicate()


def make_sweep(path: Path, trials: int) -> None:
    """Its trials are ranked by a scalar of training, which is the slower kind."""
    drawn = {"encoder_decoder.lr": {"low": 1e-4, "high": 1e-1, "log": True}}
    config = Config(recipe="latent-translation", epochs=100)
    sweep = Sweep.create(path, new_sweep(config, drawn, sampler="sobol", trials=trials, metric="translator.loss"))
    for number in range(trials):
        fill(sweep.begin(number), live=number < trials // 10)


def address_of(process: subprocess.Popen[str]) -> str:
    """The link that the command printed."""
    assert process.stdout is not None
    while (line := process.stdout.readline()) and "http://" not in line:
        pass
    found = re.search(r"http://\S+", line)
    assert found is not None, process.communicate()
    return found[0]


def fetch(process: subprocess.Popen[str], url: str, what: str, address: str) -> None:
    """One request, with its time, and what of it the server needed: on a busy machine the two differ."""
    begun, cpu = time.perf_counter(), cpu_s(process.pid)
    answer = httpx.get(url + address, timeout=120)
    took_ms = (time.perf_counter() - begun) * 1e3
    assert answer.status_code == 200, (address, answer.text[:500])
    size = int(answer.headers.get("content-length", 0))
    print(f"{what:<34} {took_ms:7.1f} ms ({(cpu_s(process.pid) - cpu) * 1e3:.0f} ms of CPU), {size / 1e3:.0f} kB")


async def open_pages(url: str, run: Run, pages: int, seconds: int) -> None:
    """Pages that stay open while a run publishes."""
    took: list[float] = []
    late: list[float] = []
    published: dict[int, float] = {}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        kinds = ["runs" if number % 2 else f"run/{BUSY}" for number in range(pages)]
        watching = [asyncio.create_task(watch(client, kind, took, late, published)) for kind in kinds]
        for number in range(seconds):
            published[100 + number] = time.perf_counter()
            await asyncio.to_thread(publish, run, 100 + number)
            await asyncio.sleep(1)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    told(f"{pages} open pages: {len(took)} fetches", took)
    told("from publish to page", late)


async def watch(
    client: httpx.AsyncClient, kind: str, took: list[float], late: list[float], published: dict[int, float]
) -> None:
    """A browser's page: told by events, it fetches what is new."""
    tag, seen = "", 0
    async with client.stream("GET", f"/events/{kind}") as events:
        async for line in events.aiter_lines():
            if not line.startswith("data:"):
                continue
            begun = time.perf_counter()
            answer = await client.get(f"/data/{kind}", headers={"if-none-match": tag})
            now = time.perf_counter()
            took.append((now - begun) * 1e3)
            tag = answer.headers["etag"]
            if kind != "runs" and answer.status_code == 200:
                newest = max(lane["versions"][-1]["version"] for lane in answer.json()["lanes"])
                if newest > seen and newest in published:
                    late.append((now - published[newest]) * 1e3)
                seen = newest


def told(what: str, times_ms: list[float]) -> None:
    """The middle and the tail."""
    if len(times_ms) > 1:
        parts = statistics.quantiles(times_ms, n=20)
        print(f"{what:<34} p50 {parts[9]:.0f} ms, p95 {parts[18]:.0f} ms, longest {max(times_ms):.0f} ms")


def memory_mb(pid: int) -> float:
    """What is resident."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def cpu_s(pid: int) -> float:
    """What it has used of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    main()
