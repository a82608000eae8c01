"""Train, compare, test, diagnose, export and publish runs of recipes, and manage their folders."""
