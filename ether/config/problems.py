"""Turns pydantic's errors into one `ConfigError`: the place in the file, what was found there, what would be valid.

How: pydantic gives each error a location (`loc`), which also contains parts that nobody wrote: the tag of a union, the
index in a list for which a single value was written. So `_walk` follows the location through the models and through the
user's data at the same time. The parts that the data has make up the path of the message; the model at the end knows
the valid keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ether.config.scalars import spelled
from ether.errors import ConfigError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from ether.config.yaml_source import YamlDocument

MAX_PROBLEMS = 10
_KEY = "[key]"
_MAPPING = "expected a mapping (lines of `key: value`)."
_EXPECTED = {
    "bool_parsing": "expected true or false.",
    "bool_type": "expected true or false.",
    "dict_type": _MAPPING,
    "int_from_float": "expected a whole number.",
    "int_parsing": "expected a whole number.",
    "int_type": "expected a whole number.",
    "model_type": _MAPPING,
    "string_too_short": "expected text with at least one character.",
    "string_type": "expected text; put it in quotes if it looks like a number.",
    "too_long": "this can be given once only.",
    "too_short": "expected at least one; {} stands for the defaults.",
    "tuple_type": "expected a list.",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `line` is 0 where there is no file."""

    path: tuple[str | int, ...]
    text: str
    nearest: str | None
    line: int

    @property
    def dotted(self) -> str | None:
        """`instances.cam.args[0]`; None for the configuration as a whole."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return "".join(parts).removeprefix(".") or None


def config_error(
    error: ValidationError,
    model: type[BaseModel],
    data: Mapping[Any, Any],
    document: YamlDocument | None = None,
) -> ConfigError:
    """One `ConfigError` for all faults that `model` found in `data`, in the order of the file."""
    found = error.errors(include_url=False)
    problems = [_problem(details, model, data, document) for details in found]
    problems = sorted(_without_echoes(found, problems), key=lambda problem: problem.line)
    return _as_error(problems, document.file if document else None)


def nearest_of(word: object, valid: Iterable[str]) -> str | None:
    """The valid word that was probably meant; None where none is close enough."""
    import difflib  # loaded only where there is a fault

    by_lower_case = {option.lower(): option for option in valid}
    matches = difflib.get_close_matches(str(word).lower(), by_lower_case, n=1)
    return by_lower_case[matches[0]] if matches else None


def shown(value: object) -> str:
    """A value for a message: short, with its kind in words, without a password that it may contain."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, (dict, BaseModel)):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, bool):
        return f"{str(value).lower()} (a true/false value)"
    if isinstance(value, (int, float)):
        return f"{value!r:.60} (a number)"
    return f"{without_password(value)!r:.80} (text)" if isinstance(value, str) else f"a {type(value).__name__}"


def without_password(text: str) -> str:
    """A URL, or a text that may be one, with its password replaced by `***`."""
    # A password may contain an unescaped @ or /: everything up to the last @ is hidden.
    return re.sub(r"(://[^:/@\s]*):.*@", r"\1:***@", text, flags=re.DOTALL)


def _as_error(problems: Sequence[Problem], file: str | None) -> ConfigError:
    first, *others = problems
    if not others:
        return _alone(first, file)
    listed = [_sentence(first), *(str(_alone(problem, file)) for problem in others[: MAX_PROBLEMS - 1])]
    if len(problems) > MAX_PROBLEMS:
        listed.append(f"and {len(problems) - MAX_PROBLEMS} more.")
    error = ConfigError("\n  ".join(listed), file=file, line=first.line or None, path=first.dotted)
    error.nearest = first.nearest
    return error


def _sentence(problem: Problem) -> str:
    return problem.text + (f" Did you mean {problem.nearest!r}?" if problem.nearest else "")


def _alone(problem: Problem, file: str | None) -> ConfigError:
    line, path = problem.line or None, problem.dotted
    return ConfigError(problem.text, file=file, line=line, path=path, nearest=problem.nearest)


def _without_echoes(found: Sequence[ErrorDetails], problems: Sequence[Problem]) -> list[Problem]:
    """Leave out the problems that follow from another one.

    Two kinds: a missing key whose misspelling is reported as unknown (`class_path` beside `clas_path`), found by
    comparing the missing path with the nearest valid keys of the unknown ones; and everything below a key that is
    refused itself. Pydantic marks an error about a key by a location that ends in `[key]`."""
    pairs = list(zip(found, problems, strict=True))
    meant = {(*p.path[:-1], p.nearest) for details, p in pairs if details["type"] == "extra_forbidden"}
    refused = {details["loc"][:-1] for details in found if details["loc"][-1:] == (_KEY,)}
    kept = []
    for details, problem in pairs:
        loc = details["loc"]
        is_below_refused = any(loc[: len(key)] == key for key in refused) and not _is_about_key(details)
        if not is_below_refused and (details["type"] != "missing" or problem.path not in meant):
            kept.append(problem)
    return kept


def _is_about_key(details: ErrorDetails) -> bool:
    return details["type"] == "invalid_key" or details["loc"][-1:] == (_KEY,)


def _problem(details: ErrorDetails, model: type[BaseModel], data: object, document: YamlDocument | None) -> Problem:
    """One of pydantic's errors with its path and line. A validator of ours may know a place further in, and puts it
    into the `path` of the `ConfigError` that it raises; that path is appended."""
    loc = details["loc"]
    path, owner, annotation = _walk(loc, model, data)
    if _is_about_key(details) and not isinstance(details["input"], str):
        path = (*path[:-1], spelled(details["input"]))
    text, nearest = _said(details, owner, annotation)
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError) and cause.path:
        path = (*path, *cause.path.split("."))
    return Problem(path, text, nearest, (document.line_of(path) or 0) if document else 0)


def _said(details: ErrorDetails, owner: Any, annotation: Any) -> tuple[str, str | None]:
    """The sentence about one error, and the nearest valid key or value. `owner` is the model that has (or lacks) the
    key, `annotation` the type of the value. An error that one of our validators raised has its own sentence."""
    kind, last = details["type"], details["loc"][-1] if details["loc"] else ""
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return cause.problem, cause.nearest
    if cause is not None:
        return str(cause), None
    if kind == "extra_forbidden":
        return _unknown_key(last, owner)
    if kind == "missing":
        return f"this is missing; expected {_fields(owner)[str(last)].description}.", None
    if _is_about_key(details) and not isinstance(details["input"], str):
        return f"found the key {shown(details['input'])}; a name is text: put it in quotes.", None
    if kind == "literal_error":
        return _not_a_choice(details, annotation)
    return f"found {shown(details['input'])}; {_expected(details)}", None


def _unknown_key(key: object, owner: Any) -> tuple[str, str | None]:
    valid = list(_fields(owner))
    listed = f"valid here: {', '.join(valid)}." if valid else "this takes no options."
    return f"unknown key {key!r:.80}; {listed}", nearest_of(key, valid)


def _not_a_choice(details: ErrorDetails, annotation: Any) -> tuple[str, str | None]:
    choices = [str(choice) for choice in get_args(annotation)]
    nearest = nearest_of(details["input"], choices) if isinstance(details["input"], str) else None
    return f"found {shown(details['input'])}; expected one of: {', '.join(choices)}.", nearest


def _expected(details: ErrorDetails) -> str:
    known = _EXPECTED.get(details["type"])
    return known or details["msg"].replace("Input should be", "expected") + "."


def _walk(loc: Sequence[str | int], model: Any, data: object) -> tuple[tuple[str | int, ...], Any, Any]:
    """Follow `loc` through the model and the data. Returns the path as the user wrote it, the model that owns the last
    key, and the annotation of the value there.

    The model always takes the step. The data takes it only where the step is one that users write and where the data
    has such a place: for `after: camera`, the short form of a list, the index 0 of `loc` is a step in the model
    alone."""
    path: list[str | int] = []
    owner = annotation = model
    for part in loc:
        if part == _KEY:
            break
        owner, annotation, is_written = _bare(annotation), *_step(annotation, part)
        if not is_written or not _can_hold(data, part):
            continue
        path.append(part)
        data = _child(data, part)
    return tuple(path), owner, annotation


def _step(annotation: Any, part: str | int) -> tuple[Any, bool]:
    """The annotation one step further in, and whether users write that step. Only the tag of a union they do not."""
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = _fields(annotation).get(str(part))
        return (field.annotation if field else None), True
    if get_origin(annotation) is dict:
        return get_args(annotation)[1], True
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0], True
    return _tagged(annotation, part), False


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model as users write them: `as` is a word of Python's, so its field has another name."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _bare(annotation: Any) -> Any:
    """The annotation without `Annotated`, and without the None of `… | None`; both may be nested."""
    while get_origin(annotation) is Annotated or len(_besides_none(annotation)) == 1:
        annotation = (_besides_none(annotation) or get_args(annotation))[0]
    return annotation


def _besides_none(annotation: Any) -> list[Any]:
    """The members of a `… | None` except None; empty for every other annotation."""
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    return [choice for choice in choices if choice is not type(None)] if type(None) in choices else []


def _tagged(union: Any, tag: str | int) -> Any:
    """The member of a union of models whose `kind` is the tag, or whose name it is where they have no kind; None where
    there is none."""
    members = (member for member in get_args(union) if isinstance(member, type) and issubclass(member, BaseModel))
    return next((member for member in members if tag in (member.__name__, _kind_of(member))), None)


def _kind_of(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("kind")
    return None if field is None else field.default


def _can_hold(data: object, part: str | int) -> bool:
    """Whether `part` can be written below `data`. A text has no keys, and a single mapping in place of a list no
    index."""
    if isinstance(data, (list, tuple)):
        return isinstance(part, int)
    return isinstance(data, BaseModel) or (isinstance(data, Mapping) and (not isinstance(part, int) or part in data))


def _child(data: Any, part: str | int) -> object:
    if isinstance(data, BaseModel):
        return getattr(data, str(part), None)
    if isinstance(data, Mapping):
        return data.get(part)
    return data[part]
