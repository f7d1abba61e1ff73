"""What the dashboard costs: the first requests, and many open pages while a run publishes.

The pages poll as a browser does, with the tag of the version that they have. Server and pages share this machine.
Memory and CPU time of the server are read from /proc, so this needs Linux.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Annotated

import typer

from modtrain.bench.sample_runs import fill, make_all, publish
from modtrain.errors import ModtrainError
from modtrain.scheduling.config import Config
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep, new_sweep

LIVE = 10
TIMEOUT_S = 120.0
REQUESTS = (
    ("first page of all runs", ""),
    ("the same again", ""),
    ("its data", "data/runs"),
    ("first page of a run", "run/run-0000/"),
    ("the same again", "run/run-0000/"),
    ("first page of another run", "run/run-0001/"),
    ("page of a checkpoint", "checkpoint/run-0000/translator/99/"),
    ("first page of the sweep", "sweep/sweep/"),
    ("plotly.min.js", "static/plotly.min.js"),
)
"""What is requested once, and its address."""


def dashboard(
    runs: Annotated[int, typer.Option(min=2, help="Runs in the folder, each with 3 modules.")] = 1000,
    trials: Annotated[int, typer.Option(min=1, help="Trials of a sweep beside them.")] = 300,
    pages: Annotated[int, typer.Option(min=2, help="Open pages: half of all runs, half of one run.")] = 50,
    seconds: Annotated[float, typer.Option(help="How long they are open; one version a second is published.")] = 20.0,
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="Interval at which a page polls.")] = 2.0,
) -> None:
    """Serve a folder of runs and a sweep, request each kind of page, then keep many pages open."""
    with tempfile.TemporaryDirectory(prefix="modtrain-bench-") as folder:
        samples = make_all(Path(folder), runs, live=LIVE)
        make_sweep(Path(folder) / "sweep", trials)
        with serve(folder) as (pid, address):
            for what, path in REQUESTS:
                begun, cpu_begun = time.perf_counter(), cpu_s(pid)
                with closing(HTTPConnection(address, timeout=TIMEOUT_S)) as server:
                    _, body = get(server, f"/{path}")
                took_ms, cpu_ms = (time.perf_counter() - begun) * 1e3, (cpu_s(pid) - cpu_begun) * 1e3
                show(what, f"{took_ms:7.1f} ms ({cpu_ms:.0f} ms of CPU), {len(body) / 1e3:.0f} kB")
            show("memory of the server", f"{memory_mb(pid):7.0f} MB")
            cpu_begun = cpu_s(pid)
            open_pages(address, samples[0], pages, seconds, poll_seconds)
            show("memory of the server", f"{memory_mb(pid):7.0f} MB")
            show("CPU of the server", f"{cpu_s(pid) - cpu_begun:7.1f} s of {seconds:.0f} s")


def make_sweep(path: Path, trials: int) -> None:
    """A sweep whose trials are ranked by a scalar of training, which costs more to read than a metric."""
    parameters = {"encoder_decoder.lr": {"low": 1e-4, "high": 1e-1, "log": True}}
    config = Config(recipe="latent-translation", epochs=100)
    sweep = Sweep.create(path, new_sweep(config, parameters, sampler="sobol", trials=trials, metric="translator.loss"))
    for number in range(trials):
        fill(sweep.begin(number), live=number < trials // 10)


@contextmanager
def serve(folder: str) -> Iterator[tuple[int, str]]:
    """A dashboard in a process of its own: its process id and its HOST:PORT."""
    command = [sys.executable, "-m", "modtrain", "dashboard", folder, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        output = ""
        while (link := re.search(r"http://([^/]+)", output)) is None:
            line = process.stdout.readline()
            if not line:
                raise ModtrainError(f"The dashboard did not start: {output or 'it printed nothing.'}")
            output += line
        yield process.pid, link[1]
    finally:
        process.kill()
        process.communicate()


def get(server: HTTPConnection, path: str) -> tuple[HTTPResponse, bytes]:
    """One GET: the response and its body as sent."""
    server.request("GET", path, headers={"Accept-Encoding": "gzip"})
    response = server.getresponse()
    body = response.read()
    if response.status not in (200, 304):
        raise ModtrainError(f"The dashboard answered {path} with {response.status} {response.reason}.")
    return response, body


def open_pages(address: str, run: Run, pages: int, seconds: float, poll_seconds: float) -> None:
    """Keep pages open while `run` publishes one version a second, and print what that costs."""
    closed = threading.Event()

    def poll(number: int) -> list[tuple[float, int]]:
        """One open page, which asks for what is new at a fixed interval: seconds and bytes of each answer."""
        path = "/data/runs" if number % 2 else f"/data/run/{run.name}"
        polls, tag, wait_s = list[tuple[float, int]](), "", poll_seconds * number / pages
        with closing(HTTPConnection(address, timeout=TIMEOUT_S)) as server:
            while not closed.wait(wait_s):
                begun = time.perf_counter()
                response, body = get(server, f"{path}?since={tag}")
                took_s, tag = time.perf_counter() - begun, response.headers["ETag"].strip('"')
                polls.append((took_s, len(body)))
                wait_s = max(0.0, poll_seconds - took_s)
        return polls

    with ThreadPoolExecutor(pages) as pool:
        polling = [pool.submit(poll, number) for number in range(pages)]
        try:
            for version in range(100, 100 + max(1, round(seconds))):
                publish(run, version)
                typer.echo(f"published version {version}, {pages} pages open", err=True)
                time.sleep(1)
        finally:
            closed.set()
        times_s, sizes = zip(*(each for page in polling for each in page.result()), strict=True)
    new = [size for size in sizes if size]
    rates = f"{len(sizes) / seconds:.1f} polls/s, {sum(sizes) / seconds / 1e3:.1f} kB/s"
    typer.echo(f"{pages} open pages: {len(sizes)} polls, {len(new)} with new data; {rates}")
    parts = statistics.quantiles(times_s, n=20, method="inclusive")
    p50, p95, longest = (seconds * 1e3 for seconds in (parts[9], parts[18], max(times_s)))
    show("a poll", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, longest {longest:.0f} ms")
    show("an update", f"median {statistics.median(new):.0f} bytes")


def show(what: str, value: str) -> None:
    """Print one figure."""
    typer.echo(f"{what:<34} {value}")


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(resident[1]) / 1024 if resident else 0.0


def cpu_s(pid: int) -> float:
    """CPU time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
