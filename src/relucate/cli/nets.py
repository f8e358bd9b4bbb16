"""`relucate nets`: the built-in networks and their options."""

from __future__ import annotations

import json

from .options import Format, TextOrJson


def nets(format: Format = TextOrJson.text) -> None:
    """List the built-in networks with their options and defaults."""
    from ..nets import NETS, options, summary

    if format is TextOrJson.json:
        rows = [{"name": n, "summary": summary(n), "options": options(n)} for n in NETS]
        print(json.dumps({"schema": "relucate.nets/1", "nets": rows}, indent=1))
        return
    for name in NETS:
        print(f"{name:<14}{summary(name)}")
        print(f"{'':<14}" + " ".join(f"{k}={v}" for k, v in options(name).items()))
