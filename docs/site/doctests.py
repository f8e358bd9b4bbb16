"""An extension of griffe, which reads the docstrings for the site: examples are code there."""

import re

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Put each example of a docstring into a fenced block."""

    def on_object(self, *, obj, **_):
        """Change the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(fenced, obj.docstring.value)


def fenced(match):
    """Return an example as a fenced block with its own indentation."""
    indent = match[1]
    return f"\n{indent}```pycon\n{match[0]}\n{indent}```\n"
