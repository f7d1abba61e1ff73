"""The run's folder: the only package that knows where its files lie and how they are read."""
