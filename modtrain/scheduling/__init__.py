"""Placement, submission and supervision of jobs."""
