"""Data sets, and the loaders that turn them into batches. Import from the files: nothing is loaded here."""
