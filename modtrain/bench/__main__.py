"""`python -m modtrain.bench`."""

from modtrain.bench.queue import app

app()
