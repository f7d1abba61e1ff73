"""Which tests start first, and which share a process, when pytest-xdist gives whole files to its processes.

The longest go first, so that none of them is left over at the end; what waits for a scheduler comes before what
computes, so that processes compute while others wait.
"""

from __future__ import annotations

FIRST = (
    "scheduling/test_pbs.py",
    "sweeps/test_array_jobs.py",
    "recipes/test_tutorial_ring.py",
    "scheduling/test_ray_cluster.py",
    "scheduling/test_launch_again.py",
    "scheduling/test_launch_killed.py",
    "scheduling/test_slurm.py",
    "sweeps/test_sweep.py",
    "scheduling/test_jobs_folder.py",
    "scheduling/test_profiles.py",
    "cli/test_launch.py",
    "bench/test_bench.py",
    "dashboard/test_browser.py",
    "training/test_trackers.py",
    "scheduling/test_ray.py",
    "training/test_worker_events.py",
    "scheduling/test_backend_contract.py",
    "sweeps/test_study.py",
    "cli/test_sweep_command.py",
    "scheduling/test_local_slurm.py",
    "training/test_resume.py",
    "scheduling/test_job_script.py",
    "dashboard/test_hostile.py",
    "cli/test_damaged_run.py",
    "training/test_peers.py",
    "training/test_early_stop.py",
    "recipes/test_cyclegan_joint.py",
)
RANK = {name: rank for rank, name in enumerate(FIRST)}


def rank(name: str) -> int:
    """The place of a file, by its path below `tests`; files that are quick share the last one."""
    return RANK.get(name, len(FIRST))


def group(test: str) -> str:
    """The tests that run in the same process as this one: those of its file, or all that use the cluster `raylets`.

    Its nodes cost some ten seconds of CPU time, which each further process with such a test would spend again.
    """
    uses_raylets = any(part in test for part in ("scheduling/test_ray.py::", "[ray", "::test_on_ray_"))
    return "raylets" if uses_raylets else test.partition("::")[0]
