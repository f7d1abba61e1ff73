"""`launch --dry-run`: folder, settings, placement and commands of a run, without creating it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from modtrain.cli import terminal
from modtrain.recipes.params import flatten, parameters
from modtrain.scheduling.placement import format_placement

if TYPE_CHECKING:
    from modtrain.scheduling.new_run import RunPlan
    from modtrain.scheduling.resume import BackendChoice


def show(plan: RunPlan, choice: BackendChoice) -> None:
    """Print the plan."""
    run, out = plan.run, terminal.console()
    status = "would be resumed" if plan.target.resumes else "would be created"
    out.print(f"[bold]{run.name}[/]  [dim]{status}[/]\n")
    out.print(terminal.facts(_facts(plan, choice)))
    out.print("\n[dim]workers[/]")
    for modules in run.spec.placement:
        out.print(f"  modtrain worker {shlex.quote(str(run.path))} --modules {','.join(modules)}", soft_wrap=True)
    changed = _changed_parameters(plan)
    out.print(f"\n[dim]parameters[/] {'' if changed else 'all at their defaults'}")
    if changed:
        out.print(terminal.facts({f"  {name}": value for name, value in changed.items()}))
    out.print("\n[dim]Nothing was created.[/]")


def _facts(plan: RunPlan, choice: BackendChoice) -> dict[str, object]:
    spec = plan.run.spec
    costs = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in plan.draft.costs.items())
    source = "from run.json" if plan.target.resumes else f"measured per step: {costs}" if costs else ""
    return {
        "folder": plan.run.path,
        "recipe": spec.recipe,
        "data": spec.dataroot or "built in",
        "backend": choice.name,
        "placement": format_placement(spec.placement) + (f"\n({source})" if source else ""),
        "epochs": spec.epochs,
        "exchange": f"every {spec.exchange_every} steps" if spec.exchange_every else "after every epoch",
        "staleness": "unbounded" if spec.max_staleness is None else f"at most {spec.max_staleness} epochs",
        "seed": spec.seed,
        "device": spec.device,
    }


def _changed_parameters(plan: RunPlan) -> dict[str, str]:
    """Parameters that differ from the recipe's defaults."""
    values = flatten(plan.run.spec.params)
    changed = {}
    for parameter in parameters(plan.target.recipe.params):
        value, default = _as_text(values.get(parameter.name)), _as_text(parameter.default)
        if value != default:
            changed[parameter.name] = f"{value}  (default {default})"
    return changed


def _as_text(value: Any) -> str:
    return json.dumps(value, default=str).strip('"')
