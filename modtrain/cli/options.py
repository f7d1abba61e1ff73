"""Options that several commands have, each declared once.

Deliberately not here: what a scheduler is told about a job (`modtrain/profile.py`), and a recipe's parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    pass

Text = str | None
Count = int | None
WHAT, HOW, WHERE, DOING = "What is trained", "How it is trained", "Where it runs", "What to do"


def option(section: str, meaning: str, *names: str, metavar: str | None = None, **more: Any) -> Any:
    """An option that stands in a section of the help; its default is said in its meaning."""
    return typer.Option(*names, help=meaning, metavar=metavar, rich_help_panel=section, show_default=False, **more)


RecipeOption = Annotated[Text, option(WHAT, "A recipe's name or file. [latent-translation]", metavar="NAME")]
DatarootOption = Annotated[Text, option(WHAT, "Training data. [built in]", metavar="DIR")]
SettingsOption = Annotated[
    list[str] | None,
    option(WHAT, "A parameter, such as translator.lr=1e-4; repeatable.", "--set", metavar="NAME=VALUE"),
]
EpochsOption = Annotated[Count, option(HOW, "Passes over the data. [the recipe's]", metavar="N")]
ExchangeOption = Annotated[Count, option(HOW, "Steps between exchanges inside an epoch. [the recipe's]", metavar="N")]
StalenessOption = Annotated[
    Count, option(HOW, "Epochs that a peer may be behind; 0 is lockstep. [the recipe's]", metavar="N")
]
PeerTimeoutOption = Annotated[float | None, option(HOW, "Seconds to wait for a peer. [1800]", metavar="SECONDS")]
SeedOption = Annotated[Count, option(HOW, "Everything random follows from it. [0]", metavar="N")]
DeviceOption = Annotated[Text, option(HOW, "auto, cpu, cuda, cuda:1 or mps. [auto]", metavar="NAME")]
TrackOption = Annotated[
    list[str] | None, option(HOW, "wandb or mlflow, beside TensorBoard's files; repeatable.", "--track", metavar="NAME")
]
PlaceOption = Annotated[
    Text, option(WHERE, "By hand: 'translator | encoder_decoder,discriminator'.", metavar="MODULES")
]
BackendOption = Annotated[
    Text, option(WHERE, "What starts the workers: ray, local, slurm or pbs. [ray]", metavar="NAME")
]
ProfileOption = Annotated[Text, option(WHERE, "What a cluster wants of every job: YAML.", metavar="FILE")]
AddressOption = Annotated[Text, option(WHERE, "Of a Ray cluster. [started here]", metavar="HOST:PORT")]
RootOption = Annotated[Text, option(WHERE, "Folder of the runs, shared by all nodes. [runs]", metavar="DIR")]


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder, such as runs/apples-1.")]


RunOrSweepArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or of a sweep.")]


ThreadsOption = Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads that torch may use.")]


LeaveAfterOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", envvar="MODTRAIN_LEAVE_AFTER", help="Publish and leave before so long: a job's time limit."
    ),
]


UnattendedOption = Annotated[
    bool, typer.Option("--unattended", help="No launcher watches: tell the others of a failure, evaluate at the end.")
]


EvaluateEveryOption = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Epochs between evaluations by the first worker.")
]


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
