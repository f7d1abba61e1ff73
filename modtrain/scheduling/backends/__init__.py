"""Where commands run: one file a backend."""
