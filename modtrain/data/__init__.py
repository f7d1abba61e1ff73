"""Data sets, and the batches made of them. Import from the files: this one loads nothing."""
