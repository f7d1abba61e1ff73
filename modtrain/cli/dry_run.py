"""`launch --dry-run`: the run's folder, the placement and why, the workers' commands, changed parameters."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from modtrain.cli import terminal
from modtrain.recipes.params import flatten, parameters
from modtrain.scheduling.config import written

if TYPE_CHECKING:
    from modtrain.cli.launch_plan import Plan
    from modtrain.storage.run import Run


def show(plan: Plan) -> None:
    """Print it. Nothing is created; costs are measured where they decide the placement."""
    run, out = plan.draft(), terminal.console()
    out.print(f"[bold]{run.name}[/]  [dim]{'exists: would go on' if plan.exists else 'would be made'}[/]\n")
    out.print(terminal.facts(_said_of(run, plan)))
    out.print("\n[dim]workers[/]")
    for placed in run.spec.placement:
        out.print(f"  modtrain worker {shlex.quote(str(run.path))} --modules {','.join(placed)}", soft_wrap=True)
    changed = _changed(run, plan)
    out.print(f"\n[dim]parameters[/] {'' if changed else 'all at their defaults'}")
    if changed:
        out.print(terminal.facts({f"  {name}": value for name, value in changed.items()}))
    out.print("\n[dim]Nothing was created.[/]")


def _said_of(run: Run, plan: Plan) -> dict[str, object]:
    spec = run.spec
    costs = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in plan.costs.items())
    why = "from run.json" if plan.exists else f"measured: {costs} a step" if costs else ""
    return {
        "folder": run.path,
        "recipe": spec.recipe,
        "data": spec.dataroot or "built in",
        "backend": plan.backend,
        "placement": written(spec.placement) + (f"\n({why})" if why else ""),
        "epochs": spec.epochs,
        "exchange": f"every {spec.exchange_every} steps" if spec.exchange_every else "after every epoch",
        "staleness": "unbounded" if spec.max_staleness is None else f"at most {spec.max_staleness} epochs",
        "seed": spec.seed,
        "device": spec.device,
    }


def _changed(run: Run, plan: Plan) -> dict[str, str]:
    """Parameters that are not at the recipe's defaults."""
    values = flatten(run.spec.params)
    found = {}
    for parameter in parameters(plan.recipe.params):
        value, default = (_plain(it) for it in (values.get(parameter.name), parameter.default))
        if value != default:
            found[parameter.name] = f"{value}  (default {default})"
    return found


def _plain(value: Any) -> str:
    return json.dumps(value, default=str).strip('"')
