"""A read-only web page over a folder of runs and sweeps; `modtrain dashboard ROOT` serves or exports it.

Nothing is written below ROOT. What is read stays in memory in three layers:

1. `Catalog` (`monitoring/catalog.py`): the rows of all runs and sweeps, refreshed by reading only what changed.
2. `Source` (`page_data.py`): histories and curves of the viewed runs, trials and metrics of the viewed sweeps.
3. `PageCache` (`page_cache.py`): the last versions of the data of each viewed page. A browser polls with the tag of
   its version and gets 304, or the delta from it (`delta.py`).
"""
