"""The built-in data sets: apples and oranges, cultivars as thermal pictures and in colour, eight labelled classes."""
