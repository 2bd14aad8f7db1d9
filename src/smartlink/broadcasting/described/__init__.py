"""Descriptions of an application's events for those who receive them: AsyncAPI, JSON Schema, TypeScript, a page."""

from __future__ import annotations

from smartlink.broadcasting.described.document import Described, describe, event_classes
from smartlink.broadcasting.described.page import page
from smartlink.broadcasting.described.schema import json_schema
from smartlink.broadcasting.described.typescript import event_types, types

__all__ = ["Described", "describe", "event_classes", "event_types", "json_schema", "page", "types"]
