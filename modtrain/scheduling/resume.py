"""The rules of resuming: which backend and options a run or sweep continues with, for Python and the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from modtrain.scheduling.backends.base import BackendOptions
from modtrain.scheduling.config import Config
from modtrain.scheduling.job_record import read_record
from modtrain.scheduling.profile import Profile, read_profile
from modtrain.storage.run import Run


@dataclass(frozen=True, kw_only=True)
class PreviousLaunch:
    """How a run or a sweep was launched last."""

    backend: str | None = None
    options: BackendOptions = field(default_factory=BackendOptions)
    has_jobs: bool = False
    """Whether any job was submitted. What was refused so far may be corrected by the next command."""


def previous_launch(run: Run) -> PreviousLaunch:
    """How a run was launched last; nothing where it never was."""
    record = read_record(run)
    return PreviousLaunch(backend=record.backend, options=record.options, has_jobs=bool(record.jobs))


def choose_backend(config: Config, previous: PreviousLaunch) -> str:
    """The backend that is named, or that the named profile is for, else the previous one, else the default."""
    if "backend" in config.model_fields_set:
        return config.backend
    named = _named_profile(config)
    return (named.backend if named else None) or previous.backend or config.backend


def choose_options(config: Config, backend: str, previous: PreviousLaunch) -> BackendOptions:
    """The options of the backend: the named profile, else the previous one; then the job options of the config.

    The previous options hold for the same backend only. A command that names a backend or a profile starts from
    scratch while no job was submitted, so that it can correct what was refused.
    """
    is_named = "backend" in config.model_fields_set or config.profile is not None
    is_same = previous.backend == backend and (previous.has_jobs or not is_named)
    before = previous.options if is_same else BackendOptions()
    profile = (_named_profile(config) or before.profile).with_values(config.job, "The job options")
    options = BackendOptions(address=config.address, profile=profile)
    return options if options.address else replace(options, address=before.address)


def _named_profile(config: Config) -> Profile | None:
    return read_profile(Path(config.profile).expanduser()) if config.profile else None
