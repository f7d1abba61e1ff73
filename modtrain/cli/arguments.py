"""Parsing of arguments and layout of help: sections, underscores in names, options that only a recipe defines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from modtrain.cli import closed_pipe
from modtrain.errors import InputError, did_you_mean
from modtrain.recipes.params import name_rates, parameters_meant

ALIASES = {"--n-epochs": "--epochs", "--peer-timeout-s": "--peer-timeout", "--storage-timeout-s": "--storage-timeout"}
NUMBERS = ("cpus", "memory_gb", "gpus")
"""Job options that are numbers although their default is None."""
UNDECLARED = "modtrain.undeclared"
"""Key of a click context under which a `LaunchCommand` keeps name and value of options that it does not declare."""


class Command(TyperCommand):
    """A command with options in sections, whose names may be typed with underscores."""

    keeps_undeclared = False

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write each section (`rich_help_panel` of its options) in the order of the options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                name = "Arguments" if param.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(param, "rich_help_panel", None) or name, []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records, col_max=26)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments with option names spelled as they are declared."""
        return super().parse_args(ctx, self._declared(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a reader that closes the pipe, such as `head`, ends it without a message."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            closed_pipe.leave()
            raise typer.Exit(closed_pipe.EXIT_CODE) from None

    def _declared(self, ctx: Any, args: Sequence[str]) -> list[str]:
        """The arguments, spelled as declared; undeclared options are kept in the context or left to be refused."""
        takes_value = {option: not getattr(p, "is_flag", False) for p in self.get_params(ctx) for option in names_of(p)}
        declared: list[str] = []
        undeclared = ctx.meta[UNDECLARED] = list[tuple[str, str]]()
        rest = list(args)
        while rest:
            token = rest.pop(0)
            if token == "--":
                return [*declared, token, *rest]
            name, equals, value = token.partition("=")
            dashed = name.replace("_", "-")
            known = ALIASES.get(dashed, dashed)
            if known in takes_value:
                declared.append(known + equals + value)
                if takes_value[known] and not equals and rest:
                    declared.append(rest.pop(0))
            elif token.startswith("--") and self.keeps_undeclared:
                is_flag = not equals and (not rest or rest[0].startswith("--"))
                undeclared.append((name, "true" if is_flag else value if equals else rest.pop(0)))
            else:
                declared.append(token)
        return declared


class RecipeCommand(Command):
    """A command that also takes the parameters of a recipe, as `--batch-size 4`, `--translator.lr 1e-4` or `--no-flip`.

    They are kept for `recipe_settings`.
    """

    keeps_undeclared = True


class LaunchCommand(RecipeCommand):
    """A recipe's command that also takes the job options of a cluster: `--queue long`, the fields of `Profile`.

    They are kept for `job_options`.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections, the job options last: they are for clusters only."""
        from modtrain.scheduling.profile import options

        super().format_options(ctx, formatter)
        with formatter.section("Job options of a cluster (a profile has the same names)"):
            formatter.write_dl(options(), col_max=26)


class SweepCommand(LaunchCommand):
    """A launch command whose `--prune` may be given without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Add the first pruner to a `--prune` that is followed by another option, or by a file or folder."""
        from modtrain.sweeps.study import PRUNERS

        following = [*args, ""][1:]
        spelled = [
            f"--prune={PRUNERS[0]}" if word == "--prune" and after not in PRUNERS and _is_other(after) else word
            for word, after in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, spelled)


def _is_other(text: str) -> bool:
    """Whether a word cannot be meant as the name of a pruner."""
    return not text or text.startswith("-") or "/" in text or text.endswith((".yaml", ".yml")) or Path(text).exists()


def names_of(param: Any) -> list[str]:
    """Every spelling of an option; none for an argument."""
    return [name for name in [*param.opts, *param.secondary_opts] if name.startswith("-")]


def job_options(ctx: typer.Context) -> dict[str, Any]:
    """Take the job options from the undeclared ones, by the names of `Profile`; a repeatable one becomes a list."""
    from modtrain.scheduling.profile import ALIASES, Profile
    from modtrain.storage.strict_yaml import read_value

    options: dict[str, Any] = {}
    rest = []
    for option, value in ctx.meta[UNDECLARED]:
        name = option.lstrip("-").replace("-", "_")
        name = ALIASES.get(name, name)
        field = Profile.model_fields.get(name)
        if field is None or name == "backend":
            rest.append((option, value))
        elif field.default == ():
            options.setdefault(name, []).append(value)
        else:
            is_number = isinstance(field.default, float | int) or name in NUMBERS
            options[name] = read_value(value) if is_number else value
    ctx.meta[UNDECLARED] = rest
    return options


def recipe_settings(ctx: typer.Context, parameters: Sequence[str]) -> list[str]:
    """The undeclared options as `--set` takes them; InputError where the recipe has no such parameter.

    An option means what `parameters_meant` says: `--lr` sets every learning rate.
    """
    settings = []
    for option, value in ctx.meta[UNDECLARED]:
        name = option.lstrip("-").replace("-", "_")
        names = parameters_meant(name, parameters)
        if not names and value == "true" and name.startswith("no_"):
            names, value = parameters_meant(name.removeprefix("no_"), parameters), "false"
        if not names:
            known = [name for param in ctx.command.params for name in names_of(param) if name.startswith("--")]
            short = [parameter.rpartition(".")[2] for parameter in parameters]
            spelled = {f"--{re.sub('[._]', '-', parameter)}" for parameter in [*short, *parameters]}
            near = did_you_mean(re.sub("[._]", "-", option), [*known, *sorted(spelled)])
            near = name_rates(name, parameters) or near
            raise InputError(
                f"There is no option {option}, and the recipe has no parameter of that name.{near} "
                f"`{ctx.command_path} --help` lists the options, `modtrain recipes NAME` the parameters."
            )
        settings += [f"{name}={value}" for name in names]
    return settings


def file_or_folder(
    target: Path | None, given: dict[str, Any], kind: str, open_folder: Callable[[Path], Path]
) -> tuple[Path | None, dict[str, Any]]:
    """The config file, or None and the options with the name and root of the run or sweep in a folder.

    `open_folder` returns the resolved path of that run or sweep.
    """
    from modtrain import plugins

    if target is None or target.suffix in (".yaml", ".yml"):
        return target, given
    if target.suffix == ".py" or str(target) in plugins.known("recipe"):
        raise InputError(f"{target} is a recipe: give it as --recipe {target}.")
    if target.is_file():
        return target, given
    path = open_folder(target)
    options = {"name": path.name, "root": str(path.parent)}
    for name, value in options.items():
        if given[name] not in (None, value):
            raise InputError(f"--{name} {given[name]} contradicts the {kind} {target}; leave one of them out.")
    return None, {**given, **options}
