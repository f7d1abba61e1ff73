"""JobWatch: what schedulers say about the jobs of many runs, asked seldom and in the background.

A view is never delayed by a scheduler, and each scheduler is asked once for all runs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modtrain import plugins
from modtrain.errors import BackendSilent, ModtrainError
from modtrain.scheduling.job_record import JobId, Record, backend_of, describe_jobs, is_known, known_jobs
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import WorkerJob
from modtrain.sweeps.sweep import Sweep

Subject = tuple[Run | Sweep, frozenset[int]]
"""A run, or a sweep with the numbers of the trials whose tasks are not asked about."""
NOT_ASKED = "The scheduler is not asked from this machine: what waits for it is shown as of the last report."


@dataclass
class _Question:
    """The jobs of one folder, and what was answered."""

    record: Record
    is_cancelled: bool
    jobs: dict[int, WorkerJob] = field(default_factory=dict)
    """By worker of a run, or by task of a sweep's arrays."""


class JobWatch:
    """The last answers, by folder. What another user may have recorded is not asked about."""

    def __init__(self, every_s: float) -> None:
        """Nothing is asked yet; later at most once in `every_s`."""
        self.silence = ""
        """Why a scheduler did not answer the last time, as a sentence; what was answered before stays."""
        self._every_s = every_s
        self._answers: dict[Path, _Question] = {}
        self._asked_at = float("-inf")
        self._thread = threading.Thread()

    def jobs(self, folder: Path) -> Mapping[int, WorkerJob]:
        """What was answered last; empty where nothing was."""
        answer = self._answers.get(folder)
        return answer.jobs if answer else {}

    def ask_later(self, subjects: Sequence[Subject]) -> None:
        """Ask about the jobs of these folders in the background, if it is time."""
        if subjects and time.monotonic() - self._asked_at >= self._every_s and not self._thread.is_alive():
            self._thread = threading.Thread(target=self.ask, args=(subjects,), name="jobs", daemon=True)
            self._thread.start()

    def ask(self, subjects: Sequence[Subject]) -> None:
        """Ask about the jobs of these folders and wait for the answers; other folders are forgotten."""
        self._asked_at, questions = time.monotonic(), dict[Path, _Question]()
        for folder, over in subjects:
            with contextlib.suppress(OSError, ModtrainError):  # the row of the folder says what is wrong with it
                questions[folder.path] = _question(folder, over)
        self.silence = _answer(list(questions.values()))
        for path in self._answers.keys() & questions.keys():
            questions[path].jobs = questions[path].jobs or self._answers[path].jobs
        self._answers = questions


def _question(folder: Run | Sweep, over: frozenset[int]) -> _Question:
    record, stop = known_jobs(folder) if isinstance(folder, Run) else _tasks(folder, over), folder.stop_request()
    own = record if record.foreign is None else Record()
    return _Question(own, is_cancelled=stop is not None and stop.kind == "cancelled")


def _tasks(sweep: Sweep, over: frozenset[int]) -> Record:
    arrays = sweep.read_record().arrays
    jobs = {task: job for task, job in arrays.jobs.items() if task // sweep.workers not in over}
    return Record(backend=arrays.backend, options=arrays.options, jobs=jobs, foreign=arrays.foreign)


def _answer(questions: Sequence[_Question]) -> str:
    """Add its answer to each question; why a scheduler gave none."""
    silence = ""
    names = {job.backend for question in questions for job in question.record.jobs.values()}
    for name in sorted(filter(is_known, names)):
        try:
            _ask(name, questions)
        except BackendSilent as error:
            silence = f"{str(error).rstrip('.')}: what waits for it is shown as of its last answer."
        except ModtrainError:
            silence = NOT_ASKED
    return silence


def _ask(name: str, questions: Sequence[_Question]) -> None:
    """Ask a backend once about all of its jobs, if it is a scheduler."""
    own = [{n: job for n, job in each.record.jobs.items() if job.backend == name} for each in questions]
    first = next(each.record for each, jobs in zip(questions, own, strict=True) if jobs)
    if plugins.load("backend", name).unattended:
        states = backend_of(JobId(name, ""), first).status(sorted({job.id for jobs in own for job in jobs.values()}))
        for question, jobs in zip(questions, own, strict=True):
            of_each = {number: states[job.id] for number, job in jobs.items()}
            question.jobs |= describe_jobs(jobs, of_each, is_cancelled=question.is_cancelled)
