"""Inference with the trained networks of a run: the model, its `apply` on image files, and samples as image files."""
