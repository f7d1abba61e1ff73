"""The worker's loop and everything around it in the worker's process."""
