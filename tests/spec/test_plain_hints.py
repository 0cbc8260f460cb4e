"""What is built without pydantic is what pydantic would have built."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter

from ether.spec.descriptions import schema_of
from ether.spec.hints import validator_of
from ether.spec.plain_hints import core_schema_of, json_schema_of

PLAIN = [int, float, str, bool, int | None, float | None, dict[str, int], dict[str, Any], dict[str, object]]
PLAIN += [dict[str, dict[str, float | None]], dict[str, str] | None]
VALUES = [None, 1, 0, "1", "x", 2.5, True, "true", b"1", [1], {"a": 1}, {"a": "x"}, {1: 2}, {"a": {"b": 1.5}}, {}]


def outcome(validate: Any, value: object) -> object:
    """What a validator makes of a value, with its type; or what it says is wrong."""
    try:
        made = validate(value)
    except ValueError as error:
        return str(error)
    return type(made), made


@pytest.mark.parametrize("hint", PLAIN, ids=str)
def test_both_are_those_of_pydantic(hint: Any) -> None:
    adapter = TypeAdapter[Any](hint)
    assert core_schema_of(hint) == adapter.core_schema
    assert json_schema_of(hint) == adapter.json_schema() == schema_of(hint)
    validate = validator_of(hint)
    assert [outcome(validate, value) for value in VALUES] == [
        outcome(adapter.validate_python, value) for value in VALUES
    ]


@pytest.mark.parametrize("hint", [list[int], list[dict[str, str]], dict[str, list[float]]], ids=str)
def test_lists_are_described_the_same(hint: Any) -> None:
    assert json_schema_of(hint) == TypeAdapter[Any](hint).json_schema()


@pytest.mark.parametrize("hint", [int | str, int | str | None, dict[int, str], tuple[int, str], set[int]], ids=str)
def test_anything_else_is_left_to_pydantic(hint: Any) -> None:
    assert core_schema_of(hint) is None
    assert json_schema_of(hint) is None
    assert schema_of(hint) is not None


def test_pydantic_is_not_loaded_for_them() -> None:
    code = (
        "import sys; from ether.spec.arguments import Arguments; from ether.spec.descriptions import schema_of\n"
        "def f(a: int, b: dict[str, float] | None = None) -> dict[str, object]: ...\n"
        "print(Arguments(f, 'f').bind({'a': '1'}), schema_of(dict[str, object]), 'pydantic' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "([], {'a': 1}) {'additionalProperties': True, 'type': 'object'} False\n"
