"""Runs of recipes: one, several side by side, tested, diagnosed; and the folders they leave."""
