"""JSON Schema of events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["json_schema"]


def json_schema(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema for the events of an AsyncAPI document: an object with a property for each, by its wire name."""
    components = document["components"]
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": document["info"]["title"],
        "description": "The payload of each event, by its name on the wire.",
        "type": "object",
        "properties": {
            message["name"]: message["payload"] | ({"description": message["summary"]} if message["summary"] else {})
            for message in components["messages"].values()
        },
        "$defs": components["schemas"],
    }
    moved: dict[str, Any] = json.loads(json.dumps(schema).replace('"#/components/schemas/', '"#/$defs/'))
    return moved
