"""The former place of `shortback.recipes`, kept for code that imports from here."""

from shortback.recipes.load import RecipeError, load_recipe, parse_recipe, recipe_names, recipe_text
from shortback.recipes.schema import Recipe

__all__ = ["Recipe", "RecipeError", "load_recipe", "parse_recipe", "recipe_names", "recipe_text"]
