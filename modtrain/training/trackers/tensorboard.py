"""TensorBoard: event files below `<run>/events`.

Each module's worker writes `events/<module>/`, the evaluation `events/evaluation/`; the parameters are in a file of
their own above them, so that the HParams page has one row for each run with all of its metrics. A record is written by
one call and removed where that fails, so a file can always be read to its end; torch's SummaryWriter leaves partial
records on a full disk.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams.summary_v2 import hparams_pb

from modtrain.storage import filesystem
from modtrain.storage.layout import EVENTS
from modtrain.storage.process_identity import process_started
from modtrain.training.trackers.base import Subject, settings

_STAMP = re.compile(r"\.tfevents\.([0-9]+)\.")


class TensorBoard:
    """The event files of one worker, or of an evaluation."""

    package: ClassVar[str] = "tensorboard"

    def __init__(self, subject: Subject) -> None:
        """Points of an earlier process beyond `subject.step` will be hidden. Nothing is written yet."""
        self._subject = subject
        self._folder = subject.run.path / EVENTS
        self._files = {name: EventFile(self._folder / name) for name in subject.modules}
        self._started: set[str] = set()

    def scalars(self, module: str, values: Mapping[str, float], *, step: int, at: float) -> None:
        if module not in self._started:
            self._start(module, at)
        values_of_event = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._files[module].append(Event(summary=Summary(value=values_of_event), step=step, wall_time=at))

    def picture(self, path: Path, *, step: int, at: float) -> None:
        content = filesystem.read_file(path)
        width, height = struct.unpack(">II", content[16:24])
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=content)
        summary = Summary(value=[Summary.Value(tag="samples", image=image)])
        for file in self._files.values():
            file.append(Event(summary=summary, step=step, wall_time=at))

    def close(self, state: str) -> None:
        """Nothing to do: no file is kept open."""

    def _start(self, module: str, at: float) -> None:
        self._write_settings()
        if self._subject.step is not None:
            start = SessionLog(status=SessionLog.START)
            self._files[module].append(Event(session_log=start, step=self._subject.step + 1, wall_time=at))
        self._started.add(module)

    def _write_settings(self) -> None:
        """Write the parameters for TensorBoard's HParams page; the metrics are those of the folders below."""
        run, at = self._subject.run, self._subject.run.spec.created_at
        path = self._folder / f"events.out.tfevents.{int(at):010d}.settings"
        if not path.exists():
            event = Event(summary=hparams_pb(settings(run), trial_id="", start_time_secs=at), wall_time=at)
            path.parent.mkdir(exist_ok=True)
            filesystem.replace_file(path, _records(_first(at), event))


tracker = TensorBoard


class EventFile:
    """The event file of this process in a folder; the newest one, since TensorBoard reads no file after a newer one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None

    def append(self, event: Event) -> None:
        """Add one record, or raise OSError and leave the file as it was."""
        self._folder.parent.mkdir(exist_ok=True)  # not those above: a run that was moved is not created anew
        self._folder.mkdir(exist_ok=True)
        if self._path is None:
            self._path = self._folder / self._name(float(event.wall_time))
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            content = _records(event) if size else _records(_first(event.wall_time), event)
            try:
                if (written := os.write(descriptor, content)) < len(content):
                    raise OSError(f"only {written} of {len(content)} bytes could be written to {self._path}")
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def _name(self, at: float) -> str:
        """One name for one process. A new file sorts after all existing ones, whatever the machines' clocks."""
        ours = f"{socket.gethostname()}.{os.getpid()}.{process_started(os.getpid())}"
        stamps = {name: int(match[1]) for name in filesystem.names(self._folder) if (match := _STAMP.search(name))}
        newest = max(stamps, key=lambda name: stamps[name], default="")
        if newest.endswith(f".{ours}"):
            return newest
        return f"events.out.tfevents.{max(int(at), stamps.get(newest, -1) + 1):010d}.{ours}"


def _first(at: float) -> Event:
    return Event(file_version="brain.Event:2", wall_time=at)


def _records(*events: Event) -> bytes:
    """TFRecord framing: the length and the data of each event, each with its masked CRC-32C."""
    framed = b""
    for data in (event.SerializeToString() for event in events):
        for part in (struct.pack("<Q", len(data)), data):
            framed += part + struct.pack("<I", masked_crc32c(part))
    return framed
