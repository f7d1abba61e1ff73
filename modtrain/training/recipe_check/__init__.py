"""Check of a recipe before a run is created: its data, a step of each module, save and load, and an evaluation.

All of it happens on the CPU, with the run's own data and parameters, in a temporary folder.
"""
