"""The recipes that come with modtrain: one file a recipe."""
