"""An extension of griffe, which reads the docstrings for the site.

Examples are code there, and the short forms of a docstring's sections (several parameters in one
line, a section of one line) are lists and paragraphs.
"""

import re

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
SECTION = re.compile(r"^( *)(Args|Attributes):(.*(?:\n\1 +\S.*)*)", re.MULTILINE)
SENTENCE = re.compile(r"^( *)(Returns|Raises|Source): (?=\S)", re.MULTILINE)
NEXT_NAME = re.compile(r"[;.] (?=[a-z_]\w*(?:, \w+)*: )")
NO_BREAK = "\N{NO-BREAK SPACE}"  # griffe takes what is behind a plain space for a type


class Docstrings(griffe.Extension):
    """Change each docstring before griffe reads it."""

    def on_object(self, *, obj, **_):
        """Change the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = changed(obj.docstring.value)


def changed(text):
    """Return a docstring as griffe and Markdown understand it."""
    text = SECTION.sub(listed, text)
    text = SENTENCE.sub(r"\n\1**\2:** ", text)
    return EXAMPLE.sub(fenced, text)


def listed(section):
    """Return a section with a line for each parameter.

    Those that share a description keep sharing it.
    """
    indent, title, body = section.groups()
    entries = [entry for text in texts(body) for entry in NEXT_NAME.split(text)]
    lines = []
    for entry in entries:
        names, colon, description = entry.partition(": ")
        lines.append(f"{indent}    {names.replace(' ', NO_BREAK)}{colon}{description}")
    return "\n".join([f"{indent}{title}:", *lines])


def texts(body):
    """Return the entries of a section, each as one line."""
    lines = body.strip("\n").splitlines()
    first = len(lines[0]) - len(lines[0].lstrip())
    found = []
    for line in lines:
        if found and line[first : first + 1].isspace():
            found[-1] += f" {line.strip()}"
        else:
            found.append(line.strip())
    return found


def fenced(match):
    """Return an example as a fenced block with its own indentation."""
    indent = match[1]
    return f"\n{indent}```pycon\n{match[0]}\n{indent}```\n"
