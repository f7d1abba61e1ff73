"""`launch`: begin a run, or go on with one, watch it, and judge what came out.

Deliberately not here: starting jobs (`modtrain/launch.py`), what is seen meanwhile (`watching.py`), and the launcher in
the background (`detaching.py`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modtrain.cli.arguments import LaunchCommand
from modtrain.cli.launch_plan import Plan
from modtrain.cli.options import (
    DOING,
    WHERE,
    AddressOption,
    BackendOption,
    Count,
    DatarootOption,
    DeviceOption,
    EpochsOption,
    ExchangeOption,
    PeerTimeoutOption,
    PlaceOption,
    ProfileOption,
    RecipeOption,
    RootOption,
    SeedOption,
    SettingsOption,
    StalenessOption,
    Text,
    TrackOption,
    option,
)

if TYPE_CHECKING:
    from modtrain.scheduling.launcher import Launch


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(cls=LaunchCommand)(launch)


def launch(
    ctx: typer.Context,
    target: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG.yaml | RUN", help="A config file, or the folder of a run to go on with."),
    ] = None,
    recipe: RecipeOption = None,
    dataroot: DatarootOption = None,
    settings: SettingsOption = None,
    epochs: EpochsOption = None,
    exchange_every: ExchangeOption = None,
    max_staleness: StalenessOption = None,
    peer_timeout: PeerTimeoutOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    track: TrackOption = None,
    nodes: Annotated[Count, option(WHERE, "Workers; 1 trains all modules jointly. [one a module]", metavar="N")] = None,
    place: PlaceOption = None,
    backend: BackendOption = None,
    profile: ProfileOption = None,
    address: AddressOption = None,
    root: RootOption = None,
    name: Annotated[Text, option(WHERE, "The run's folder in it. [the recipe's, numbered]", metavar="NAME")] = None,
    dry_run: Annotated[bool, option(DOING, "Say what would happen; create nothing.", "--dry-run")] = False,
    detach: Annotated[bool, option(DOING, "Watch in the background, return at once.", "--detach")] = False,
    wait: Annotated[bool, option(DOING, "Follow jobs of slurm or pbs to their end.", "--wait")] = False,
    resume: Annotated[bool, option(DOING, "Only go on with a run, never begin one.", "--resume")] = False,
    ready_fd: Annotated[Count, typer.Option("--ready-fd", hidden=True)] = None,
) -> None:
    """Train a recipe: begin a run, or go on with one that exists.

    With nothing else said: the recipe latent-translation on built-in data, a module a worker. The same command again,
    with the run's --name, goes on where it ended, finished workers excepted. Every parameter of the recipe (`modtrain
    recipes`) is an option, too: --batch-size 4, --translator.lr 1e-4; --lr sets each module's.

    Ctrl-C asks all workers to publish and leave; a second one ends them at once. On slurm and pbs the command submits a
    job for each worker and returns; `--dry-run` writes the job scripts there and submits nothing.
    """
    given = {
        "recipe": recipe, "dataroot": dataroot, "epochs": epochs, "exchange_every": exchange_every, "seed": seed,
        "max_staleness": max_staleness, "peer_timeout_s": peer_timeout, "device": device, "nodes": nodes,
        "place": place, "backend": backend, "address": address, "root": root, "name": name, "profile": profile,
        "track": track or None,
    }  # fmt: skip
    plan = Plan.of(ctx, target, given, settings or [])
    plan.check(resume=resume, detach=detach, wait=wait)
    if dry_run and plan.unattended:
        from modtrain.cli.submit_view import show_scripts

        show_scripts(plan.started(submits=False))
    elif dry_run:
        from modtrain.cli.dry_run import show

        show(plan)
    elif plan.unattended and not wait:
        from modtrain.cli.submit_view import submit

        submit(plan.started())
    elif detach:
        from modtrain.cli.detach import detach as leave

        leave(plan.run(), plan.backend, plan.options)
    else:
        carry_out(plan.started(), ready_fd)


def carry_out(started: Launch, ready_fd: int | None) -> None:
    """Submit, watch to the end, and say what came out of it."""
    from modtrain.cli.detach import say_ready
    from modtrain.cli.launch_view import LaunchView

    begun = time.monotonic()
    view = LaunchView(started)
    try:
        started.start()
        say_ready(ready_fd)
        code = view.follow()
    except BaseException:
        if not started.backend.unattended:  # jobs of a scheduler go on without us
            started.cancel()
        raise
    if code == 0:
        view.print_result(time.monotonic() - begun)
    raise typer.Exit(code)
