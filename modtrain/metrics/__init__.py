"""Image metrics under the names of the field. Import from the files: nothing is loaded here."""
