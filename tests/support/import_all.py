"""Imports every module of the package: `make test-runtime` runs it with the runtime dependencies alone."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import modtrain


def main() -> int:
    """The exit code: 1 where a module cannot be imported."""
    failures = 0
    for module in pkgutil.walk_packages(modtrain.__path__, "modtrain."):
        if module.name.endswith(".__main__"):  # runs a command at its import
            continue
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            failures += 1
            print(f"{module.name}: {error}", file=sys.stderr)  # noqa: T201
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
