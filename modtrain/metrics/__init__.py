"""Image metrics by the names of the field. Import from the files: this one loads nothing."""
