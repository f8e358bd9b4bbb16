"""Networks to start from, in any order. Importing this package imports no framework."""

from .registry import NETS, build, check_options, find, options, summary

__all__ = ["NETS", "build", "check_options", "find", "options", "summary"]
