"""tracking: where a run's scalars and pictures go besides its own files: always TensorBoard, if asked W&B or MLflow."""
