"""The state of a run, a sweep and a folder of runs."""
