"""Recipes: runs as data. The YAML files, what may be in them, how they are read, and what is built of them."""
