"""Initial weights: the file with which a module begins its training, or which a fixed module has."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from modtrain.errors import InputError, StorageError
from modtrain.storage import filesystem
from modtrain.storage.layout import CHECKPOINTS


def _without_nul(name: str) -> str:
    if "\0" in name:
        raise ValueError("the name of a file has no NUL")
    return name


FileName = Annotated[str, AfterValidator(_without_nul)]
"""The name of a file or a package, which need not be UTF-8."""


class InitialWeights(BaseModel):
    """The weights with which one module begins, or which it always has, as `run.json` names them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: str
    """As the command named them."""
    path: FileName
    sha256: str
    kept_as: FileName | None = None
    """Name of the file in the run's folder that holds them as well: the version at `path` may be pruned."""

    def kept(self, name: str) -> InitialWeights:
        """The same weights, of a version of a run with a file of this name in the folder of the run that is created."""
        source = Path(self.path)
        is_version = source.parent.parent.name == CHECKPOINTS
        return self.model_copy(update={"kept_as": name + source.suffix}) if is_version else self

    def within(self, folder: Path) -> InitialWeights:
        """The same weights, at the file in a run's folder where that holds them."""
        return self.model_copy(update={"path": str(folder / self.kept_as)}) if self.kept_as else self

    def read(self) -> bytes:
        """The content of the file; InputError where it is gone or another one, StorageError where it cannot be read."""
        try:
            content = filesystem.read_file(Path(self.path))
        except FileNotFoundError:
            raise InputError(f"The weights {self.path} are gone; put the file back, or begin another run.") from None
        except OSError as error:
            raise StorageError(f"The weights {self.path} cannot be read: {error.strerror}.") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise InputError(
                f"{self.path} has changed since the run was created; put the file back as it was, or begin another run."
            )
        return content
