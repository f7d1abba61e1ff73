"""How arguments are read and help is shown: sections, spellings with underscores, and options that a recipe defines.

Deliberately not here: any command.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from modtrain.errors import InputError, did_you_mean

ALIASES = {"--n-epochs": "--epochs", "--peer-timeout-s": "--peer-timeout"}
NUMBERS = ("cpus", "memory_gb", "gpus")
"""Job options that are numbers and have no default that says so."""
FREE = "modtrain.free"
"""Where a context keeps the options that only a recipe knows, as (name, value)."""


class Commands(TyperGroup):
    """The program."""


class Command(TyperCommand):
    """A command whose options stand in sections, and whose names may be typed with underscores."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Each section that an option names (`rich_help_panel`), in order."""
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
        """Spell options as they are declared before they are read."""
        kept, free = self._sorted_out(ctx, args)
        return super().parse_args(ctx, [*kept, *(token for _, _, tokens in free for token in tokens)])

    def invoke(self, ctx: Any) -> Any:
        """Whoever reads the output may go away, as `head` does: that ends the command, and is no failure to tell."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(141) from None

    def _sorted_out(self, ctx: Any, args: Sequence[str]) -> tuple[list[str], list[tuple[str, str, list[str]]]]:
        """What is declared here, and (name, value, as typed) of every other long option."""
        takes_value = {option: not getattr(p, "is_flag", False) for p in self.get_params(ctx) for option in names_of(p)}
        kept: list[str] = []
        free: list[tuple[str, str, list[str]]] = []
        rest = list(args)
        while rest:
            token = rest.pop(0)
            if token == "--":
                return [*kept, token, *rest], free
            name, equals, value = token.partition("=")
            dashed = name.replace("_", "-")
            known = ALIASES.get(dashed, dashed)
            if not token.startswith("--") or known in takes_value:
                kept.append(known + equals + value if token.startswith("--") else token)
                if takes_value.get(known) and not equals and rest:
                    kept.append(rest.pop(0))
                continue
            typed = [token]
            if not equals:
                value = "true"
                if rest and not rest[0].startswith("--"):
                    typed.append(value := rest.pop(0))
            free.append((name, value, typed))
        return kept, free


class LaunchCommand(Command):
    """A command that takes options that it does not declare itself.

    They are a recipe's parameters (`--batch-size 4`, `--translator.lr 1e-4`, `--no-flip`), and what a cluster wants to
    be told about every job (`--queue long`), which `modtrain/profile.py` declares.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The job options stand last: on one machine nobody needs them."""
        from modtrain.scheduling.profile import options

        super().format_options(ctx, formatter)
        with formatter.section("What a scheduler is told about each job (a profile has the same names)"):
            formatter.write_dl(options(), col_max=26)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the options that only the recipe can know, for `settings_of`."""
        kept, free = self._sorted_out(ctx, args)
        ctx.meta[FREE] = [(name, value) for name, value, _ in free]
        return super().parse_args(ctx, kept)


class SweepCommand(LaunchCommand):
    """The same, and `--prune` may stand alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--prune` without a method means the first one: what follows is another option, or a file or folder."""
        from modtrain.sweeps.study import PRUNERS

        following = [*args[1:], ""]
        spelled = [
            f"--prune={PRUNERS[0]}" if word == "--prune" and next_one not in PRUNERS and _is_no_word(next_one) else word
            for word, next_one in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, spelled)


def _is_no_word(text: str) -> bool:
    return not text or text.startswith("-") or "/" in text or text.endswith((".yaml", ".yml")) or Path(text).exists()


def names_of(param: Any) -> list[str]:
    """Every spelling of an option; none for an argument."""
    return [name for name in [*param.opts, *param.secondary_opts] if name.startswith("-")]


def job_options(ctx: typer.Context) -> dict[str, Any]:
    """The options that describe a job, by the names of `Profile`; a repeated one becomes a list."""
    from modtrain.scheduling.profile import ALIASES, Profile
    from modtrain.storage.strict_yaml import read_yaml

    found: dict[str, Any] = {}
    rest = []
    for option, text in ctx.meta.get(FREE, []):
        name = option.lstrip("-").replace("-", "_")
        name = ALIASES.get(name, name)
        field = Profile.model_fields.get(name)
        if field is None or name == "backend":
            rest.append((option, text))
        elif field.default == ():
            found.setdefault(name, []).append(text)
        else:
            found[name] = read_yaml(text) if isinstance(field.default, float | int) or name in NUMBERS else text
    ctx.meta[FREE] = rest
    return found


def settings_of(ctx: typer.Context, parameters: Sequence[str]) -> list[str]:
    """The options that nobody declares, as `--set` takes them; InputError where the recipe has none such.

    An option means the parameter of that name, or all whose last part it is: `--lr` sets every learning rate.
    """
    options = [name for param in ctx.command.params for name in names_of(param) if name.startswith("--")]
    settings = []
    for name, value in ctx.meta.get(FREE, []):
        meant, value = _meant(name, value, parameters)
        if not meant:
            raise InputError(_no_option(name, options, parameters))
        settings += [f"{parameter}={value}" for parameter in meant]
    return settings


def file_or_folder(
    target: Path | None, given: dict[str, Any], kind: str, opened: Callable[[Path], Path]
) -> tuple[Path | None, dict[str, Any]]:
    """A config file, or the options that mean the folder of a run or a sweep; `opened` says where the folder is."""
    from modtrain import plugins

    if target is None or target.suffix in (".yaml", ".yml"):
        return target, given
    if target.suffix == ".py" or str(target) in plugins.known("recipe"):
        raise InputError(f"{target} is a recipe: give it as --recipe {target}.")
    if target.is_file():
        return target, given
    path = opened(target)
    meant = {"name": path.name, "root": str(path.parent)}
    for name, value in meant.items():
        if given[name] not in (None, value):
            raise InputError(f"--{name} {given[name]} contradicts the {kind} {target}; leave one of them out.")
    return None, {**given, **meant}


def _meant(option: str, value: str, parameters: Sequence[str]) -> tuple[list[str], str]:
    name = option.lstrip("-").replace("-", "_")
    found = _named(name, parameters)
    if not found and name.startswith("no_") and value == "true":
        return _named(name.removeprefix("no_"), parameters), "false"
    return found, value


def _named(name: str, parameters: Iterable[str]) -> list[str]:
    return [known for known in parameters if known == name or known.rpartition(".")[2] == name]


def _no_option(name: str, options: list[str], parameters: Sequence[str]) -> str:
    spelled = {f"--{parameter.rpartition('.')[2].replace('_', '-')}" for parameter in parameters}
    near = did_you_mean(name.replace("_", "-"), [*options, *sorted(spelled)])
    return (
        f"There is no option {name}, and the recipe has no parameter of that name.{near} "
        "`modtrain launch --help` shows the options, `modtrain recipes NAME` the parameters."
    )
