"""Options that several commands share, each declared once. Job options are in `scheduling/profile.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from modtrain.errors import InputError

Text = str | None
Count = int | None
SUBJECT, TRAINING, EXECUTION, MODE = "Recipe and data", "Training", "Execution", "Mode"
"""Sections of the help."""


def option(section: str, meaning: str, *names: str, metavar: str | None = None, **more: Any) -> Any:
    """An option in a section of the help; its default is part of its meaning."""
    return typer.Option(*names, help=meaning, metavar=metavar, rich_help_panel=section, show_default=False, **more)


RecipeOption = Annotated[
    Text, option(SUBJECT, "Name, file or module of the recipe. [latent-translation]", metavar="NAME")
]
DatarootOption = Annotated[Text, option(SUBJECT, "Folder of the training data. [built-in data]", metavar="DIR")]
SettingsOption = Annotated[
    list[str] | None,
    option(SUBJECT, "Set a parameter, such as translator.lr=1e-4; repeatable.", "--set", metavar="NAME=VALUE"),
]
EpochsOption = Annotated[Count, option(TRAINING, "Passes over the data. [the recipe's]", metavar="N")]
UntilStageOption = Annotated[
    Text,
    option(TRAINING, "End the run after this stage for now; a later command goes on. [the last one]", metavar="STAGE"),
]
FromStageOption = Annotated[
    Text,
    option(TRAINING, "Begin after a stage of another run, with its weights. RUN: its last one.", metavar="RUN@STAGE"),
]
HoldScheduleOption = Annotated[
    bool | None,
    option(TRAINING, "With more --epochs of an existing run: keep schedules where they ended.", "--hold-schedule"),
]
ExchangeOption = Annotated[
    Count, option(TRAINING, "Steps between exchange points inside an epoch. [the recipe's]", metavar="N")
]
StalenessOption = Annotated[
    Text,
    option(
        TRAINING,
        "Epochs that a peer may be behind; exchange: none, nor at exchange points. [the recipe's]",
        metavar="N|exchange|none",
    ),
]
KeepOption = Annotated[
    Count,
    option(
        TRAINING, "Versions of each module that stay on disk. [what peers need, and the last minute's]", metavar="N"
    ),
]
EvaluateEveryOption = Annotated[
    Count, option(TRAINING, "Epochs between evaluations; 0 is only at the end. [a tenth of all]", metavar="N")
]
EarlyStopOption = Annotated[
    Text,
    option(
        TRAINING,
        "End once METRIC no longer gets better; as in psnr,window=50,patience=50. [the recipe's]",
        metavar="METRIC|none",
    ),
]
PeerTimeoutOption = Annotated[
    float | None, option(TRAINING, "Longest wait for a peer in seconds. [1800]", "--peer-timeout", metavar="SECONDS")
]
StorageTimeoutOption = Annotated[
    float | None,
    option(
        TRAINING,
        "Longest time in seconds that storage may refuse everything. [900]",
        "--storage-timeout",
        metavar="SECONDS",
    ),
]
SeedOption = Annotated[
    Count, option(TRAINING, "Seed of weights, batches and a recipe's random draws. [0]", metavar="N")
]
DeviceOption = Annotated[Text, option(TRAINING, "auto, cpu, cuda, cuda:1 or mps. [auto]", metavar="NAME")]
UseDeviceOption = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")]
PrecisionOption = Annotated[
    Text, option(TRAINING, "float32, bfloat16 or float16, of losses; weights stay float32. [float32]", metavar="NAME")
]
TrackOption = Annotated[
    list[str] | None,
    option(TRAINING, "Log to wandb or mlflow besides TensorBoard; repeatable.", "--track", metavar="NAME"),
]
MetricOption = Annotated[
    Text, option(TRAINING, "Metric by which versions and runs are compared. [the recipe's]", "--metric", metavar="NAME")
]
InitOption = Annotated[
    list[str] | None,
    option(
        TRAINING,
        "Begin a module with weights of a file, or of RUN#MODULE@VERSION; repeatable.",
        "--init",
        metavar="MODULE=REF",
    ),
]
NodesOption = Annotated[
    Count, option(EXECUTION, "Number of workers; 1 trains all modules jointly. [by the recipe]", metavar="N")
]
PlaceOption = Annotated[
    Text, option(EXECUTION, "Explicit placement: 'translator | encoder_decoder,discriminator'.", metavar="MODULES")
]
BackendOption = Annotated[
    Text, option(EXECUTION, "Where the workers run: ray, local, slurm or pbs. [ray]", metavar="NAME")
]
ProfileOption = Annotated[Text, option(EXECUTION, "YAML file with the job options of a cluster.", metavar="FILE")]
AddressOption = Annotated[
    Text, option(EXECUTION, "Address of a Ray cluster. [a new one on this machine]", metavar="HOST:PORT")
]
RootOption = Annotated[Text, option(EXECUTION, "Folder of the runs, shared by all nodes. [runs]", metavar="DIR")]

CHECKING = "Checking the recipe; --no-check leaves this out."
CheckOption = Annotated[
    bool | None, option(MODE, "Check the recipe before a new run is created. [check]", "--check/--no-check")
]

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run, such as runs/apples-1.")]
RunOrSweepArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or a sweep.")]
BestOption = Annotated[
    bool, typer.Option("--best", help="Use the versions of the best evaluation, or of early stopping.")
]
TruncateOption = Annotated[
    Text,
    typer.Option(metavar="HOW", help="resample: draw values beyond T again; scale: multiply all by T.  [resample]"),
]
VersionOption = Annotated[Count, typer.Option(metavar="N", help="Version of each module.  [the newest]")]
ThreadsOption = Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads of PyTorch.")]
LeaveAfterOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        envvar="MODTRAIN_LEAVE_AFTER",
        help="Publish and exit within this time, such as the time limit of a job.",
    ),
]
UnattendedOption = Annotated[
    bool,
    typer.Option("--unattended", help="Run without a launcher: report failures to the peers, evaluate at the end."),
]
TrustOption = Annotated[
    bool,
    option(MODE, "Run recipe and tracker files that were edited since, or may be another user's.", "--trust-recipe"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def truncations(values: str | None) -> list[float | None]:
    """Those of `0.3,0.5,none`; none is noise as it was drawn. InputError for anything else."""
    found: list[float | None] = []
    for value in (values or "none").split(","):
        try:
            found.append(None if value.strip() == "none" else float(value))
        except ValueError:
            raise InputError(
                f"--truncation {values}: {value.strip() or 'an empty value'} is no number; give thresholds above 0, "
                "as in 0.3,0.5,1, or none."
            ) from None
    return found


def truncate_method(given: str | None, thresholds: Sequence[float | None]) -> str:
    """How noise is truncated. InputError where a method is given and no threshold, which would change nothing."""
    if given is not None and all(threshold is None for threshold in thresholds):
        raise InputError(
            f"--truncate {given} says how noise is truncated, but not how far; add --truncation, as in 0.5."
        )
    return given or "resample"
