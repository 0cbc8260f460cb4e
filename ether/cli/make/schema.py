"""`ether schema`: the JSON Schema of a configuration, made from the models that read it, so that the two cannot differ.

The trap: the models accept short spellings that pydantic's own schema does not contain, because validators resolve
them: an empty value after a colon, and one use of a decorator where a list may stand. The generator here finds them by
calling each validator with such a value.
"""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from ether.cli.exits import CommandMistake
from ether.cli.options import Json
from ether.cli.output import print_json
from ether.config import EtherConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file instead.")
    ] = None,
    json: Json = False,
) -> None:
    """Print the JSON Schema of a configuration. With VS Code's YAML extension (yaml-language-server) put
    `# yaml-language-server: $schema=ether.schema.json` into the first line of a configuration."""
    if output is None:
        print_json(config_schema())
        return
    try:
        output.write_text(json_text.dumps(config_schema(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CommandMistake(f"cannot write {output}: {error.strerror or error}") from error
    if json:
        print_json({"written": str(output)})


def config_schema() -> dict[str, Any]:
    """The schema as JSON data."""
    made = EtherConfig.model_json_schema(schema_generator=_Generator)
    described = "What ether.tap() and ether run take. Made by: ether schema"
    return {"$schema": DIALECT, **made, "title": "Ether configuration", "description": described}


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
    """What a validator returns for a value; None where it rejects the value."""
    try:
        return function(value)
    except Exception:  # noqa: BLE001  every exception of a validator is a rejection
        return None
