"""The base of all shapes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """An object of an answer. What stands below a field describes it in the OpenAPI document."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class Identified(Shape):
    """Something that has an id, and so can stand in a list with cursors."""

    id: str
