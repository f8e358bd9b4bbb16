"""What the site adds to the pages: the reference, and links that lead out of docs/.

MkDocs calls the `on_` functions. The pages cli.md and api.md are short on GitHub; here the options
of every verb and the docstrings of every public name follow them.
"""

import importlib
import re
from pathlib import Path

import typer
from rich.text import Text

import relucate
from relucate.cli.app import app

LINK = re.compile(r"\]\((?:\.\./)+([^)#\s]+)")
HIDDEN = {"help", "install_completion", "show_completion"}


def on_config(config):
    """Make the anchors of headings as GitHub makes them."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def slug(heading, separator):
    """Return GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def on_page_markdown(markdown, page, config, files):
    """Complete the pages of the reference, and send links to files outside of docs/ to GitHub."""
    path = page.file.src_uri
    added = {"cli.md": command_line, "api.md": python}
    if path in added:
        markdown += "\n\n" + added[path]()
    if "/" in path:  # ../page.md is inside
        return markdown
    return LINK.sub(rf"]({config.extra['repository']}/blob/main/\1", markdown)


def on_post_build(config):
    """Remove the theme's page for addresses that don't exist.

    It finds its style at the server's root alone, and the site is read anywhere, as files too.
    """
    Path(config.site_dir, "404.html").unlink(missing_ok=True)


def command_line():
    """Return the reference of all verbs."""
    root = typer.main.get_command(app)
    verbs = sorted(root.commands.items())
    return "\n\n".join(verb_page(name, command) for name, command in verbs)


def verb_page(name, command):
    """Return a verb's usage, its description, and a table of each group of options."""
    context = typer.Context(command, info_name=f"relucate {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"## relucate {name}", plain(command.help), f"    relucate {name} {usage}"]
    panels = {}
    for parameter in command.params:
        if parameter.name not in HIDDEN:
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            panels.setdefault(panel, []).append(row(parameter))
    for panel, rows in panels.items():
        parts.append("\n".join([f"| {panel} | |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def row(parameter):
    """Return an option or argument as a row: its names, and its help with the default."""
    argument = parameter.param_type_name == "argument"
    names = [parameter.name.upper()] if argument else parameter.opts + parameter.secondary_opts
    shown = ", ".join(f"`{name}`{{.option}}" for name in names)
    return f"| {shown} | {plain(parameter.help).replace('|', chr(92) + '|')} |"


def plain(text):
    """Return a help text without rich's markup, in Markdown."""
    words = Text.from_markup(text or "").plain
    return re.sub(r"(?<![`\w])(--?[\w-]+)", r"`\1`", words.replace("*", r"\*")).strip()


def python():
    """Return the directives that mkdocstrings replaces by the docstrings of the public names."""
    return "\n\n".join(map(module_page, ("relucate", "relucate.keras", "relucate.torch")))


def module_page(name):
    """Return a module's heading and a directive for each of its public names."""
    names = importlib.import_module(name).__all__ if name != "relucate" else relucate.__all__
    return "\n\n".join([f"## {name}", *(f"::: {name}.{public}" for public in names)])
