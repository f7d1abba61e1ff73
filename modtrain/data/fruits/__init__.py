"""The built-in data set of apples and oranges, rendered."""
