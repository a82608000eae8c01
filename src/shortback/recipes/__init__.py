"""Recipes: runs as data. The YAML files, their schema, and the code that reads them and builds objects from them."""
