"""A read-only web page over a folder of runs and sweeps; `modtrain dashboard ROOT` serves or exports it.

It reads what the workers wrote and writes nothing below ROOT. Deliberately not here: what a run's state is
(`status.py`), what has been told over time (`history.py`), and which runs there are (`catalog.py`).
"""
