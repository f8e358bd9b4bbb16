"""The Python surface: one file per verb, which connects readers, planners and reports."""
