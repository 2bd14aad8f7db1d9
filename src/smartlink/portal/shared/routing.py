"""Routers of features."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

__all__ = ["feature_router", "operation_id"]


def operation_id(route: APIRoute) -> str:
    """Return a name for generated clients: the feature and the action."""
    return "_".join(str(part) for part in (*route.tags[:1], route.name))


def feature_router(**options: Any) -> APIRouter:
    """Return a router whose routes are used as they are.

    FastAPI's `include_router` examines every endpoint once more for each application, and looks up which router a
    request belongs to.
    """
    return APIRouter(generate_unique_id_function=operation_id, **options)
