"""Trackers: TensorBoard always, W&B and MLflow on request, besides the run's own files."""
