"""What `launch` does instead of following its workers: a dry run, a submission, a launch in the background."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import typer

from modtrain.cli import terminal
from modtrain.cli.output import echo
from modtrain.errors import ModtrainError, Preempted, counted
from modtrain.recipes.params import flatten
from modtrain.scheduling.launcher import Launch, Member
from modtrain.scheduling.placement import format_placement
from modtrain.scheduling.run_plan import RunPlan
from modtrain.storage.early_stop import EarlyStop
from modtrain.storage.run import RunSpec, StageSpec

READY = b"submitted"


def show_plan(plan: RunPlan, backend: str) -> None:
    """Print folder, settings, placement and commands of a run without creating it."""
    spec, out = plan.run.spec, terminal.console()
    status = "would be resumed" if plan.target.resumes else "would be created"
    costs = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in plan.costs.items())
    source = "from run.json" if plan.target.resumes else f"measured per step: {costs}" if costs else ""
    out.print(terminal.Text.assemble((plan.run.name, "bold"), "  ", (status, "dim"), "\n"))
    if plan.notes:
        out.print("would be changed" if plan.target.resumes else "note", style="dim")
        for note in plan.notes:
            out.print(terminal.Text(f"  {note}"), soft_wrap=True)
        out.print()
    begun = "\n".join(f"{name} ({each.reference})" for name, each in spec.init.items())
    facts = {
        "folder": plan.run.path,
        "recipe": spec.recipe,
        "data": spec.dataroot or "built in",
        "backend": backend,
        **({"fixed": "\n".join(f"{name} ({each.path})" for name, each in spec.fixed.items())} if spec.fixed else {}),
        **({"begins with": begun} if begun else {}),
        "placement": format_placement(spec.placement) + (f"\n({source})" if source else ""),
        "epochs": spec.epochs,
        **({"stages": "\n".join(map(_stage, spec.stages))} if spec.stages else {}),
        **({"later": ", ".join(stage.name for stage in spec.later_stages)} if spec.later_stages else {}),
        **terminal.exchange_facts(spec.exchange_every, spec.max_staleness),
        **({"kept": f"the newest {spec.keep} versions of each module"} if spec.keep else {}),
        "evaluation": f"every {counted(spec.evaluate_every, 'epoch')}" if spec.evaluate_every else "at the end",
        **({"early stop": early_stop_text(spec.early_stop)} if spec.early_stop else {}),
        "seed": spec.seed,
        "device": spec.device,
        "precision": spec.precision,
    }
    out.print(terminal.facts(facts))
    out.print("\nworkers", style="dim")
    for modules in spec.placement:
        out.print(f"  modtrain worker {shlex.quote(str(plan.run.path))} --modules {','.join(modules)}", soft_wrap=True)
    changed = _changed_parameters(spec)
    out.print(terminal.Text.assemble(("\nparameters ", "dim"), "" if changed else "all at their defaults"))
    if changed:
        out.print(terminal.facts(changed))
    words = [f"Nothing was {'changed' if plan.target.resumes else 'created'}."]
    words += [unchecked(spec.recipe)] if plan.is_checked else []
    out.print("\n" + " ".join(words), style="dim", soft_wrap=True)


def _stage(stage: StageSpec) -> str:
    of_its_own = ", ".join(f"{name} {_as_text(value)}" for name, value in stage.params.items())
    trained = f"{stage.name}: {counted(stage.epochs, 'epoch')}, trains {', '.join(stage.trains)}"
    return f"{trained}; {of_its_own}" if of_its_own else trained


def early_stop_text(rule: EarlyStop) -> str:
    """A rule of early stopping in a few words."""
    over = counted(rule.window, "epoch")
    return f"when the mean of {rule.metric} over {over} is no better for {counted(rule.patience, 'epoch')}"


def unchecked(recipe: str) -> str:
    """What a dry run leaves out, in a sentence."""
    return (
        f"The recipe was not checked: `modtrain check {shlex.quote(recipe)}` checks it, with the same --set, "
        "--dataroot, --precision and --metric, and so does a launch."
    )


def start(launch: Launch) -> list[Member]:
    """Submit the workers that are missing; Preempted where a signal comes meanwhile, which the run's folder then says.

    Jobs that an earlier launch has left to a scheduler continue.
    """
    signals: list[signal.Signals] = []
    try:
        with terminal.interrupting_signals(signals):
            return launch.start()
    except KeyboardInterrupt:
        if not signals:
            raise
        cause = terminal.cause(signals[0])
        if not launch.backend.unattended:
            launch.run.request_stop(cause, sender="modtrain launch")
        path = shlex.quote(terminal.short(launch.run.path))
        raise Preempted(
            f"The launch was ended while it started its workers ({cause}); `modtrain launch {path}` starts them."
        ) from None


def show_scripts(launch: Launch, *, is_new: bool) -> None:
    """Write and print the job scripts, and submit nothing; the recipe of a new run is not checked."""
    for path in launch.scripts():
        echo(f"# {path}")
        echo(path.read_text())
    if is_new:
        echo(f"# {unchecked(launch.run.spec.recipe)}")
    echo(f"# Nothing was submitted. The scripts are in {launch.run.jobs_path} and can be submitted by hand.")


def submit(launch: Launch) -> None:
    """Submit the workers without a live job, and print every worker's job and the commands that follow."""
    submitted = {member.number for member in start(launch)}
    out, run, reasons = terminal.console(), launch.run, dict[str, str]()
    with contextlib.suppress(ModtrainError):  # the reason why a job can never run is known at once
        states = launch.backend.status(launch.job_ids().get(launch.backend_name, []))
        reasons = {id: state.reason for id, state in states.items() if state.reason != "None"}
    out.print(terminal.Text.assemble((run.name, "bold"), "  ", (f"on {launch.backend_name}", "dim")), soft_wrap=True)
    for member in launch.members:
        status = "submitted" if member.number in submitted else "finished" if member.over else "live already"
        id, reason = (member.id or "").rpartition("@")[2], reasons.get(member.id or "", "")
        line = f"  {member.name:<28}  {status:<12}  {id:<8}  {reason}".rstrip()
        out.print(line, soft_wrap=True)
    echo("Jobs submitted; you can log out." if submitted else "No job had to be submitted.")
    _print_commands(launch, ("status", "stop", "cancel"))


def start_in_background(launch: Launch) -> None:
    """Start a launcher of the run in a session of its own and return once it has submitted the jobs.

    Exits with the launcher's code where that failed.
    """
    log = launch.run.jobs_path / "launch.log"
    log.parent.mkdir(exist_ok=True)
    size = log.stat().st_size if log.exists() else 0
    launcher, answer = _start_launcher(launch, log)
    if answer != READY:
        code = launcher.wait()
        echo(log.read_bytes()[size:][-4000:].decode(errors="replace").rstrip(), err=True)
        raise typer.Exit(code or 1)
    echo(f"{launch.run.name} is running in the background (process {launcher.pid}).")
    _print_commands(launch, ("status", "stop"))
    echo(f"  output    {terminal.short(log)}")


def report_ready(descriptor: int) -> None:
    """Report to the command that started this launcher that the jobs are submitted."""
    with contextlib.suppress(OSError):
        os.write(descriptor, READY)
        os.close(descriptor)


def _start_launcher(launch: Launch, log: Path) -> tuple[subprocess.Popen[bytes], bytes]:
    """The launcher, and what it wrote into its pipe: nothing where it ended before it was ready."""
    read_end, write_end = os.pipe()
    options = launch.options
    command = [sys.executable, "-m", "modtrain", "launch", str(launch.run.path), "--backend", launch.backend_name]
    command += ["--ready-fd", str(write_end), *(["--address", options.address] if options.address else [])]
    command += ["--cpus", str(options.profile.cpus)] if options.profile.cpus else []
    command += ["--trust-recipe"] if launch.run.trusted else []
    with log.open("ab") as output:
        launcher = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=(write_end,),
        )
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        return launcher, pipe.read(len(READY))


def _changed_parameters(spec: RunSpec) -> dict[str, str]:
    """Parameters that differ from the recipe's defaults."""
    values, defaults = flatten(spec.params), flatten(spec.defaults or {})
    return {
        f"  {name}": f"{_as_text(value)}  (default {_as_text(defaults.get(name))})"
        for name, value in values.items()
        if value != defaults.get(name)
    }


def _as_text(value: object) -> str:
    return json.dumps(value).strip('"')


def _print_commands(launch: Launch, commands: tuple[str, ...]) -> None:
    """The commands for a run that is under way."""
    path = shlex.quote(terminal.short(launch.run.path))
    for command in commands:
        echo(f"  {'watch' if command == 'status' else command:<8}  modtrain {command} {path}")
