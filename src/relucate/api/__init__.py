"""The Python surface: one file per verb, each of which wires readers, planners and reports."""
