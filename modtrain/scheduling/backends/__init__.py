"""Backends, one file or package each: where the commands of a run are executed."""
