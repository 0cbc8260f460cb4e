"""The JSON Schema of a configuration, made from the models that read it, so that the two cannot differ.

The models take short spellings that pydantic's own schema does not know of, because validators resolve them: nothing
after a colon, and one use of a decorator where a list may stand. They are found by asking the validators.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from ether.config import EtherConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        inner = super().function_before_schema(schema)
        function: Any = schema["function"]["function"]
        also = []
        if "json_schema_input_schema" not in schema:
            if inner.get("type") == "array" and _result_of(function, {}) == [{}]:
                also.append(inner.get("items", {}))
            if _result_of(function, None) in ({}, [], [{}]):
                also.append({"type": "null"})
        return {"anyOf": [*also, inner]} if also else inner

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _result_of(function: Any, value: object) -> object:
    """What a validator makes of a value; None where it takes it for wrong."""
    try:
        return function(value)
    except Exception:  # noqa: BLE001  whatever a validator raises means no
        return None


def config_schema() -> dict[str, Any]:
    """As JSON data."""
    made = EtherConfig.model_json_schema(schema_generator=_Generator)
    described = "What ether.tap() and ether run take. Made by: ether schema"
    return {"$schema": DIALECT, **made, "title": "Ether configuration", "description": described}
