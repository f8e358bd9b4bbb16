"""Planners, pure: a Graph in, findings or a plan out."""
