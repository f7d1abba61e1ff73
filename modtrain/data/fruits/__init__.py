"""The built-in data sets: rendered apples and oranges, and twelve cultivars as thermal pictures and in colour."""
