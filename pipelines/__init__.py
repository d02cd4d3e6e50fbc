"""Recipes by verb, shell scripts that chain commands, and what the longer of these need of Python."""
