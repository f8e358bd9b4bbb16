"""An audit as SARIF 2.1.0, the format that code hosts read to annotate source lines.

Each finding has its layer as its logical location, and the model's file and line, if known, as its
physical location. Source: OASIS, Static Analysis Results Interchange Format 2.1.0, 2020.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(
    audit: Mapping[str, Any],
    rules: Sequence[Mapping[str, str]],
    version: str,
    *,
    file: str | None = None,
    line: int | None = None,
) -> dict[str, Any]:
    """Return an audit (schema relucate.audit/1) as a SARIF log.

    Args:
        rules: code, name, severity and summary of every rule.
        version: of relucate.
        file, line: of the code that builds the model; file is relative to the repository.
    """
    index = {rule["code"]: number for number, rule in enumerate(rules)}
    driver = {"name": "relucate", "version": version, "rules": [_rule(rule) for rule in rules]}
    results = [
        _result(finding, index[finding["code"]], audit["model"], file, line)
        for finding in audit["findings"]
    ]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "utf16CodeUnits", "results": results}],
    }


def _rule(rule: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": rule["code"],
        "name": "".join(word.capitalize() for word in rule["name"].split("-")),
        "shortDescription": {"text": rule["summary"]},
        "help": {"text": f"{rule['summary']} See docs/rules/{rule['code']}.md."},
        "defaultConfiguration": {"level": rule["severity"]},
    }


def _result(
    finding: Mapping[str, Any], index: int, model: str, file: str | None, line: int | None
) -> dict[str, Any]:
    place: dict[str, Any] = {
        "logicalLocations": [
            {
                "name": finding["where"],
                "fullyQualifiedName": f"{model}/{finding['where']}",
                "kind": "object",
            }
        ]
    }
    if file:
        region = {"startLine": line or 1}
        place["physicalLocation"] = {"artifactLocation": {"uri": file}, "region": region}
    identity = f"{finding['code']}:{model}:{finding['where']}"
    return {
        "ruleId": finding["code"],
        "ruleIndex": index,
        "level": finding["severity"],
        "message": {"text": f"{finding['where']}: {finding['message']}. Fix: {finding['fix']}."},
        "locations": [place],
        "partialFingerprints": {
            "layer/v1": hashlib.sha256(identity.encode()).hexdigest()[:32],
        },
    }
