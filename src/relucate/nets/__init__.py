"""Networks to start from, in any order. Importing this package imports no framework."""

from .recipes import NamedRecipe, recipe_named, recipe_names
from .registry import NETS, build, check_options, find, options, summary

__all__ = [
    "NETS",
    "NamedRecipe",
    "build",
    "check_options",
    "find",
    "options",
    "recipe_named",
    "recipe_names",
    "summary",
]
