"""The built-in data set: rendered apples and oranges."""
