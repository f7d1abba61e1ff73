"""Parameters fanned out into trials."""
