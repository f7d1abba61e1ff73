"""What the dashboard costs: the first requests, and many open pages while a run publishes.

The pages poll as a browser does: the data of the page at a fixed interval, with the ETag of what they have. Server and
pages share this machine. Memory and CPU time of the server are read from /proc, so this needs Linux.
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
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from modtrain.bench.sample_runs import fill, make_all, publish
from modtrain.errors import ModtrainError
from modtrain.scheduling.config import Config
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep, new_sweep

BUSY = "run-0000"
"""The run that publishes while pages are open."""
LIVE = 10
TIMEOUT_S = 120.0
VERSION = re.compile(rb'"version": ?(\d+)')


@dataclass(frozen=True)
class Poll:
    """One request of an open page."""

    took_s: float
    ended: float
    """`time.perf_counter()` at its end."""
    is_new: bool
    """Whether the server sent data, instead of 304."""
    sent_bytes: int
    version: int
    """Newest version in the data; 0 where there is none."""


def dashboard(
    runs: Annotated[int, typer.Option(min=1, help="Runs in the folder, each with 3 modules.")] = 1000,
    trials: Annotated[int, typer.Option(min=1, help="Trials of a sweep beside them.")] = 300,
    pages: Annotated[int, typer.Option(min=2, help="Open pages: half of all runs, half of one run.")] = 50,
    seconds: Annotated[float, typer.Option(help="How long they are open; one version a second is published.")] = 20.0,
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="Interval at which a page polls.")] = 5.0,
) -> None:
    """Serve a folder of runs and a sweep, request each kind of page, then keep many pages open."""
    with tempfile.TemporaryDirectory(prefix="modtrain-bench-") as folder:
        samples = make_all(Path(folder), runs, live=LIVE)
        make_sweep(Path(folder) / "sweep", trials)
        with serve(folder) as (pid, url):
            for what, address in requests(runs):
                request(pid, url, what, address)
            typer.echo(f"{'memory of the server':<34} {memory_mb(pid):7.0f} MB")
            cpu_begun = cpu_s(pid)
            polls, published = open_pages(url, samples[0], pages, seconds, poll_seconds)
            report(polls, published, seconds)
            typer.echo(f"{'memory of the server':<34} {memory_mb(pid):7.0f} MB")
            typer.echo(f"{'CPU of the server':<34} {cpu_s(pid) - cpu_begun:7.1f} s of {seconds:.0f} s")


def requests(runs: int) -> tuple[tuple[str, str], ...]:
    """What is requested once, and its address."""
    return (
        ("first page of all runs", ""),
        ("the same again", ""),
        ("its data", "data/runs"),
        ("first page of a run", f"run/{BUSY}/"),
        ("the same again", f"run/{BUSY}/"),
        ("first page of another run", f"run/run-{runs // 2:04d}/"),
        ("page of a checkpoint", f"checkpoint/{BUSY}/translator/99/"),
        ("first page of the sweep", "sweep/sweep/"),
        ("the same again", "sweep/sweep/"),
        ("plotly.min.js", "static/plotly.min.js"),
    )


def make_sweep(path: Path, trials: int) -> None:
    """A sweep whose trials are ranked by a scalar of training, which costs more to read than a metric."""
    parameters = {"encoder_decoder.lr": {"low": 1e-4, "high": 1e-1, "log": True}}
    config = Config(recipe="latent-translation", epochs=100)
    sweep = Sweep.create(path, new_sweep(config, parameters, sampler="sobol", trials=trials, metric="translator.loss"))
    for number in range(trials):
        fill(sweep.begin(number), live=number < trials // 10)
    typer.echo(f"a sweep of {trials} trials written")


@contextmanager
def serve(folder: str) -> Iterator[tuple[int, str]]:
    """A dashboard in a process of its own: its process id and its URL."""
    command = [sys.executable, "-m", "modtrain", "dashboard", folder, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        output = ""
        while (url := re.search(r"http://\S+", output)) is None:
            line = process.stdout.readline()
            if not line:
                raise ModtrainError(f"The dashboard did not start: {output or 'it printed nothing.'}")
            output += line
        yield process.pid, url[0]
    finally:
        process.kill()
        process.communicate()


def request(pid: int, url: str, what: str, address: str) -> None:
    """Request one address and print its time, the CPU time of the server, and the bytes sent (packed)."""
    begun, cpu_begun = time.perf_counter(), cpu_s(pid)
    with closing(connection(url)) as server:
        _, body = get(server, "/" + address)
    took_ms, cpu_ms = (time.perf_counter() - begun) * 1e3, (cpu_s(pid) - cpu_begun) * 1e3
    typer.echo(f"{what:<34} {took_ms:7.1f} ms ({cpu_ms:.0f} ms of CPU), {len(body) / 1e3:.0f} kB")


def connection(url: str) -> HTTPConnection:
    """A connection that is kept open between requests, as a browser keeps it."""
    return HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)


def get(server: HTTPConnection, path: str, etag: str | None = None) -> tuple[HTTPResponse, bytes]:
    """One GET, conditional with an ETag: the response and its body as sent."""
    server.request("GET", path, headers={"Accept-Encoding": "gzip"} | ({"If-None-Match": etag} if etag else {}))
    response = server.getresponse()
    body = response.read()
    if response.status not in (200, 304):
        raise ModtrainError(f"The dashboard answered {path} with {response.status} {response.reason}.")
    return response, body


def open_pages(
    url: str, run: Run, pages: int, seconds: float, poll_seconds: float
) -> tuple[list[list[Poll]], dict[int, float]]:
    """Polls of each page, and when each version was published, while `run` publishes one a second."""
    published, closed = dict[int, float](), threading.Event()
    addresses = ["/data/runs" if number % 2 else f"/data/run/{BUSY}" for number in range(pages)]
    with ThreadPoolExecutor(pages) as pool:
        polling = [
            pool.submit(poll, url, address, poll_seconds, poll_seconds * number / pages, closed)
            for number, address in enumerate(addresses)
        ]
        try:
            for number in range(100, 100 + max(1, round(seconds))):
                published[number] = time.perf_counter()
                publish(run, number)
                typer.echo(f"published version {number}, {pages} pages open", err=True)
                time.sleep(1)
        finally:
            closed.set()
        return [page.result() for page in polling], published


def poll(url: str, address: str, every_s: float, first_s: float, closed: threading.Event) -> list[Poll]:
    """One open page: after `first_s`, then every `every_s`, it asks for its data if that has changed."""
    polls, etag, wait_s = list[Poll](), None, first_s
    with closing(connection(url)) as server:
        while not closed.wait(wait_s):
            begun = time.perf_counter()
            response, body = get(server, address, etag)
            ended = time.perf_counter()
            etag = response.headers["ETag"]
            is_packed = response.headers["Content-Encoding"] == "gzip"
            data = zlib.decompress(body, wbits=31) if is_packed else body
            newest = max(map(int, VERSION.findall(data)), default=0) if address != "/data/runs" else 0
            polls.append(Poll(ended - begun, ended, response.status == 200, len(body), newest))
            wait_s = max(0.0, every_s - (time.perf_counter() - begun))
    return polls


def report(pages: Sequence[Sequence[Poll]], published: Mapping[int, float], seconds: float) -> None:
    """Print how long the polls took, what they transferred, and how late a version appeared on the pages."""
    polls = [each for page in pages for each in page]
    new = sum(each.is_new for each in polls)
    rates = f"{len(polls) / seconds:.1f} polls/s, {sum(each.sent_bytes for each in polls) / seconds / 1e3:.0f} kB/s"
    typer.echo(f"{len(pages)} open pages: {len(polls)} polls, {new} with new data; {rates}")
    print_times("a poll", [each.took_s for each in polls])
    print_times("from publish to page", [late_s for page in pages for late_s in delays(page, published)])


def delays(page: Sequence[Poll], published: Mapping[int, float]) -> Iterator[float]:
    """Seconds from each publish to the end of the first poll that has this version, or a newer one."""
    for version, at in published.items():
        first = next((each for each in page if each.version >= version), None)
        if first is not None:
            yield first.ended - at


def print_times(what: str, times_s: Sequence[float]) -> None:
    """Median, 95th percentile and maximum, in ms."""
    if len(times_s) > 1:
        parts = statistics.quantiles(times_s, n=20, method="inclusive")
        p50, p95, longest = (seconds * 1e3 for seconds in (parts[9], parts[18], max(times_s)))
        typer.echo(f"{what:<34} p50 {p50:.0f} ms, p95 {p95:.0f} ms, longest {longest:.0f} ms")


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(resident[1]) / 1024 if resident else 0.0


def cpu_s(pid: int) -> float:
    """CPU time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
