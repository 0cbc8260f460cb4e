"""Objects as the configuration names them: built by a class, a factory or a method (`build:`), or taken from a module
(`use:`). They stand for an instance's own object, and among the arguments of constructors and calls.

    kwargs:
      backend: {build: pylabrobot.liquid_handling.backends.LiquidHandlerChatterboxBackend}
      mode: {use: vendor.Mode.FAST}
      port: {build: serial.serial_for_url, args: ["loop://"]}
      scope: {of: {build: pyvisa.ResourceManager, args: ["@sim"]}, call: open_resource, args: ["ASRL1::INSTR"]}

Pure: nothing is imported here. The trap: what is named is imported and called, so whoever takes a configuration from
elsewhere checks `import_paths` first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ether.config.names import is_class_path
from ether.config.path_text import parse_path
from ether.errors import ConfigError

BUILD, USE, OF, CALL, PLAIN = "build", "use", "of", "call", "plain"
_BUILD_KEYS = frozenset({BUILD, OF, CALL, "args", "kwargs"})
_RULE = (
    "an object among the arguments is written {build: package.Class, args: […], kwargs: {…}}, with call: method for a"
    " factory of the class, {of: {build: …}, call: method} for a method of another object, or {use: package.NAME}; a"
    " mapping that only looks like one is written {plain: {…}}"
)


def is_object(value: object) -> bool:
    """Whether a mapping stands for an object: it has `build`, `use` or `of`, and no key that goes with none of them."""
    if not isinstance(value, Mapping) or not value:
        return False
    keys = set(value)
    return keys in ({USE}, {PLAIN}) or (bool(keys & {BUILD, OF}) and keys <= _BUILD_KEYS)


def check_objects(value: Any, place: str = "") -> None:
    """Raises `ConfigError`, with its place below `place`, for an object that is written wrongly; looks into lists and
    mappings."""
    if is_object(value):
        _check_object(value, place)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            check_objects(each, _below(place, key))
    elif isinstance(value, (list, tuple)):
        for number, each in enumerate(value):
            check_objects(each, _below(place, number))


def import_paths(value: Any) -> Iterator[str]:
    """The dotted names that the objects in a value import."""
    if is_object(value):
        if PLAIN in value:
            return
        yield from (str(value[key]) for key in (BUILD, USE) if key in value)
        yield from import_paths([value.get(OF), value.get("args"), value.get("kwargs")])
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from import_paths(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from import_paths(each)


def factories_in(value: Any) -> Iterator[str]:
    """The methods by which the objects in a value are made."""
    if is_object(value):
        if value.get(CALL):
            yield str(value[CALL])
        yield from factories_in([value.get(OF), value.get("args"), value.get("kwargs")])
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from factories_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from factories_in(each)


def _check_object(value: Mapping[str, Any], place: str) -> None:
    if PLAIN in value:
        return
    for key in (BUILD, USE):
        if key in value and not (isinstance(value[key], str) and is_class_path(value[key])):
            raise ConfigError(f"found {value[key]!r:.60}; {_RULE}.", path=_below(place, key))
    if BUILD in value and OF in value:
        raise ConfigError(f"has both build and of; {_RULE}.", path=place or None)
    if OF in value:
        if not is_object(value[OF]):
            raise ConfigError(f"found {value[OF]!r:.60}; {_RULE}.", path=_below(place, OF))
        if CALL not in value:
            raise ConfigError(f"lacks call, the method of it; {_RULE}.", path=place or None)
        _check_object(value[OF], _below(place, OF))
    check_call(value.get(CALL), _below(place, CALL))
    args, kwargs = value.get("args") or (), value.get("kwargs") or {}
    if not isinstance(args, Sequence) or isinstance(args, str):
        raise ConfigError(f"found {args!r:.60}; expected a list of arguments.", path=_below(place, "args"))
    if not isinstance(kwargs, Mapping):
        raise ConfigError(
            f"found {kwargs!r:.60}; expected a mapping of arguments by name.", path=_below(place, "kwargs")
        )
    check_objects(args, _below(place, "args"))
    check_objects(kwargs, _below(place, "kwargs"))


def check_call(call: object, place: str) -> None:
    """Raises `ConfigError` for a method that is no name or path of names."""
    if call is None:
        return
    try:
        path = parse_path(call)
    except ConfigError as error:
        raise ConfigError(error.problem, path=place) from None
    if len(path.names) != len(path.steps):
        raise ConfigError(f"found {call!r:.60}; expected the name of a method.", path=place)


def _below(place: str, key: object) -> str:
    return f"{place}.{key}" if place else str(key)
