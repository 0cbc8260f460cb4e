"""Methods described by plain data: a part of each announcement, and the only source of a proxy.

Promises: every method can be described, whatever its hints and defaults are; what JSON or pydantic cannot express
becomes text, or is left out. A description that was received is checked as a whole: `from_value` returns one whose
signature Python accepts, or None.

The trap: announcements are retained and sent to every member, so they stay small: a definition that a schema uses once
is written in its place, a long default is shortened, and the titles that pydantic makes of names are left out.
"""

from __future__ import annotations

import enum
import functools
import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from ether.spec.arguments import shown
from ether.spec.hints import adapter_of, resolved_hints, result_hint
from ether.spec.methods import MethodSpec
from ether.spec.plain_hints import json_schema_of
from ether.spec.signatures import signature_of

if TYPE_CHECKING:
    from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

_MAX_DEFAULT_CHARACTERS = 400
_MAX_ANNOTATION_CHARACTERS = 400
_MAX_SCHEMA_CHARACTERS = 16_384

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
"""The address in an object's text: without meaning, and different in each process."""

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_KIND_NAMES = {
    kind: kind.name.lower().replace("_", "-") for kind in (*_BY_POSITION, *_ANY_NUMBER, inspect.Parameter.KEYWORD_ONLY)
}
_KINDS = {name: kind for kind, name in _KIND_NAMES.items()}
_USUAL_KIND = _KIND_NAMES[inspect.Parameter.POSITIONAL_OR_KEYWORD]
_VARIADIC = tuple(_KIND_NAMES[kind] for kind in _ANY_NUMBER)


class SourceText(str):
    """Text as it was written in the source; `inspect.Signature` shows it without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class ParameterDescription:
    """One parameter. `kind` is `positional-only`, `positional-or-keyword`, `var-positional`, `keyword-only` or
    `var-keyword`. `default` is a JSON value; where `default_is_text`, the text of one that JSON cannot carry."""

    name: str
    kind: str = _USUAL_KIND
    required: bool = False
    default: Any = None
    default_is_text: bool = False
    annotation: str = ""
    schema: dict[str, Any] | None = None

    def to_value(self) -> dict[str, Any]:
        """As plain JSON data; values that are the default are left out."""
        value: dict[str, Any] = {"name": self.name}
        if self.kind != _USUAL_KIND:
            value["kind"] = self.kind
        if self.required:
            value["required"] = True
        elif self.kind not in _VARIADIC:
            value["default"] = self.default
        if self.default_is_text:
            value["default_is_text"] = True
        if self.annotation:
            value["annotation"] = self.annotation
        if self.schema is not None:
            value["schema"] = self.schema
        return value

    @classmethod
    def from_value(cls, value: object) -> ParameterDescription | None:
        """From data as it was received; None where that is no valid description."""
        if not isinstance(value, dict):
            return None
        found = cls(
            name=value.get("name", ""),
            kind=value.get("kind", _USUAL_KIND),
            required=value.get("required", False),
            default=value.get("default"),
            default_is_text=value.get("default_is_text", False),
            annotation=value.get("annotation", ""),
            schema=value.get("schema"),
        )
        return found if found._is_sound() else None

    def _is_sound(self) -> bool:
        texts = (self.name, self.kind, self.annotation)
        return (
            all(isinstance(text, str) for text in texts)
            and self.name.isidentifier()
            and self.kind in _KINDS
            and type(self.required) is type(self.default_is_text) is bool
            and (isinstance(self.default, str) or not self.default_is_text)
            and _is_json(self.default)
            and (self.schema is None or isinstance(self.schema, dict))
        )

    def to_parameter(self) -> inspect.Parameter:
        """As a parameter of `inspect`; raises `ValueError` for a name that is not an identifier."""
        empty = inspect.Parameter.empty
        default = SourceText(self.default) if self.default_is_text else self.default
        return inspect.Parameter(
            self.name,
            _KINDS[self.kind],
            default=empty if self.required or self.kind in _VARIADIC else default,
            annotation=SourceText(self.annotation) if self.annotation else empty,
        )


@dataclass(frozen=True, slots=True)
class MethodDescription:
    """One method. `signature` is the text as written, without `self`; `doc` the whole docstring; `returns` the JSON
    Schema of the result, and `returns_annotation` the text of its hint."""

    signature: str
    doc: str = ""
    parameters: tuple[ParameterDescription, ...] = ()
    returns: dict[str, Any] | None = None
    returns_annotation: str = ""
    is_async: bool = False

    def to_value(self) -> dict[str, Any]:
        """As plain JSON data; what is empty is left out."""
        value: dict[str, Any] = {"signature": self.signature}
        if self.doc:
            value["doc"] = self.doc
        if self.parameters:
            value["parameters"] = [parameter.to_value() for parameter in self.parameters]
        if self.returns is not None:
            value["returns"] = self.returns
        if self.returns_annotation:
            value["returns_annotation"] = self.returns_annotation
        if self.is_async:
            value["async"] = True
        return value

    @classmethod
    def from_value(cls, value: object) -> MethodDescription | None:
        """From data as it was received; None where that is no valid description, as any program can publish there.
        Unknown keys are ignored."""
        if not isinstance(value, dict):
            return None
        listed = value.get("parameters", [])
        if not isinstance(listed, list):
            return None
        parameters = [ParameterDescription.from_value(item) for item in listed]
        found = cls(
            signature=value.get("signature", ""),
            doc=value.get("doc", ""),
            parameters=tuple(parameter for parameter in parameters if parameter is not None),
            returns=value.get("returns"),
            returns_annotation=value.get("returns_annotation", ""),
            is_async=value.get("async", False),
        )
        return found if len(found.parameters) == len(parameters) and found._is_sound() else None

    def _is_sound(self) -> bool:
        return (
            all(isinstance(text, str) for text in (self.signature, self.doc, self.returns_annotation))
            and (self.returns is None or isinstance(self.returns, dict))
            and type(self.is_async) is bool
            and self._has_signature()
        )

    def _has_signature(self) -> bool:
        try:
            self.to_signature()
        except ValueError:  # a name that is no identifier or stands twice, or an impossible order of kinds
            return False
        return True

    def to_signature(self) -> inspect.Signature:
        """As a signature of `inspect`. Annotations, and defaults that JSON cannot carry, are text."""
        return inspect.Signature(
            [parameter.to_parameter() for parameter in self.parameters],
            return_annotation=SourceText(self.returns_annotation)
            if self.returns_annotation
            else inspect.Signature.empty,
        )


def describe_method(cls: type, name: str) -> MethodDescription:
    """The description of a class's method; raises `AttributeError` where the class has no such attribute."""
    method = getattr(cls, name)
    return describe_function(method, _signature_without_self(cls, name, method), cls.__module__)


def describe_function(method: Callable[..., Any], signature: inspect.Signature, module: str) -> MethodDescription:
    """The description of a function whose signature is given; `module` is left out of its hints' names."""
    hints = resolved_hints(method)
    bare = MethodDescription(
        signature="",
        doc=inspect.getdoc(method) or "",
        parameters=tuple(_parameter(p, hints.get(p.name), module) for p in signature.parameters.values()),
        returns=schema_of(result_hint(method), "serialization"),
        returns_annotation=_annotation_text(signature.return_annotation, module),
        is_async=inspect.iscoroutinefunction(method),
    )
    return replace(bare, signature=str(bare.to_signature()))


def describe_spec(cls: type, spec: MethodSpec) -> MethodDescription:
    """The description of a marked method or property, with its limits and units."""
    if spec.accessor is None:
        described = describe_method(cls, spec.name)
    else:
        function = spec.accessor(None)
        described = describe_function(function, inspect.signature(function), cls.__module__)
    parameters = tuple(
        replace(p, schema=spec.limits[p.name].schema(p.schema)) if p.name in spec.limits else p
        for p in described.parameters
    )
    returns = spec.result.schema(described.returns) if spec.result.unit else described.returns
    return replace(described, parameters=parameters, returns=returns)


def _signature_without_self(cls: type, name: str, method: Callable[..., Any]) -> inspect.Signature:
    signature = signature_of(method)
    if isinstance(inspect.getattr_static(cls, name), (staticmethod, classmethod)):
        return signature
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].kind in _BY_POSITION:
        del parameters[0]
    return signature.replace(parameters=parameters)


def _parameter(parameter: inspect.Parameter, hint: Any, module: str) -> ParameterDescription:
    required = parameter.default is inspect.Parameter.empty
    default, is_text = (None, False) if required else _default(parameter.default)
    return ParameterDescription(
        name=parameter.name,
        kind=_KIND_NAMES[parameter.kind],
        required=required and parameter.kind not in _ANY_NUMBER,
        default=default,
        default_is_text=is_text,
        annotation=_annotation_text(parameter.annotation, module),
        schema=None if hint is None else schema_of(hint, "validation"),
    )


def _default(value: object) -> tuple[Any, bool]:
    """A default that JSON can carry, or its text; and whether it is the text."""
    if _is_json(value) and len(repr(value)) <= _MAX_DEFAULT_CHARACTERS:
        return value, False
    text = f"{type(value).__qualname__}.{value.name}" if isinstance(value, enum.Enum) else shown(value)
    return _shortened(_ADDRESS.sub("", text), _MAX_DEFAULT_CHARACTERS), True


def _is_json(value: object, depth: int = 8) -> bool:
    """Whether JSON returns the same value of the same type. Exact types (`type(value) is`), because a subclass, such as
    an enum of int or a bool for an int, comes back as its base. NaN, infinities and what nests deeper than `depth` do
    not."""
    if value is None or type(value) in (bool, int, str):
        return True
    if type(value) is float:
        return isfinite(value)
    if depth and type(value) is list:
        return all(_is_json(item, depth - 1) for item in value)
    if depth and type(value) is dict:
        return all(type(key) is str and _is_json(item, depth - 1) for key, item in value.items())
    return False


def _annotation_text(annotation: Any, module: str) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    try:
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation, module)
    except Exception:  # noqa: BLE001  an annotation is any object of the user's, and this runs its __repr__
        text = shown(annotation)
    return _shortened(_ADDRESS.sub("", text), _MAX_ANNOTATION_CHARACTERS)


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


# -- JSON Schema


def schema_of(hint: Any, mode: JsonSchemaMode = "validation") -> dict[str, Any] | None:
    """The JSON Schema of a hint; None where it has none, or an empty one. `mode` is `validation` for accepted values,
    `serialization` for returned ones."""
    if (plain := json_schema_of(hint)) is not None:
        return plain
    try:
        adapter = adapter_of(hint)
        schema = adapter and _inlined(adapter.json_schema(mode=mode, schema_generator=_generator()))
        text = json.dumps(schema, allow_nan=False)
    except Exception:  # noqa: BLE001  code of the user's types runs here; a type without a schema is described by its text
        return None
    return schema or None if len(text) <= _MAX_SCHEMA_CHARACTERS else None


@functools.cache
def _generator() -> type[GenerateJsonSchema]:
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        """Leaves out the titles of fields, and gives an empty schema to a type that has none, without a warning."""

        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  so declared there

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
            return {}  # so that the other fields are described, as of a dataclass with an array

    return Generator


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema in which each definition that is used once stands in the place of its use; the others stay in
    `$defs`."""
    definitions = schema.pop("$defs", {})
    used = [name for part in (schema, definitions) for name in _references(part)]
    once = {name: body for name, body in definitions.items() if used.count(name) == 1}
    inlined: dict[str, Any] = _with_definitions(schema, once)
    kept = {name: _with_definitions(body, once) for name, body in definitions.items() if name not in once}
    return {**inlined, "$defs": kept} if kept else inlined


def _reference(node: dict[str, Any]) -> str | None:
    target = node.get("$ref")
    return target.removeprefix("#/$defs/") if isinstance(target, str) else None


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if name := _reference(node):
            yield name
        for item in node.values():
            yield from _references(item)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


def _with_definitions(node: Any, once: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_with_definitions(item, once) for item in node]
    if not isinstance(node, dict):
        return node
    beside = {key: _with_definitions(item, once) for key, item in node.items()}
    if (name := _reference(node)) not in once:
        return beside
    del beside["$ref"]
    return {**_with_definitions(once[name], once), **beside}
