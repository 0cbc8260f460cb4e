"""Makes an `EtherConfig` from the argument of `ether.tap()`: a path, a dict, a configuration, or None.

The trap: PyYAML takes 18 ms to import, so the YAML reader is imported only where a file is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ether.config.models import EtherConfig, Written
from ether.config.problems import config_error, nearest_of
from ether.errors import ConfigError

if TYPE_CHECKING:
    from ether.config.yaml_source import YamlDocument

Source = str | os.PathLike[str] | Mapping[str, Any] | EtherConfig | None


def load_config(source: Source = None) -> EtherConfig:
    """The configuration of a YAML file (its path) or a dict; an `EtherConfig` as it is; for None the default one.

    Raises `ConfigError`: what was found, where (file and line, if it came from a file), and what would be valid. Of
    several faults all are named, up to ten, and the error's attributes describe the first.
    """
    if isinstance(source, EtherConfig):
        return source
    if source is None:
        return EtherConfig()
    if isinstance(source, Mapping):
        return _validated(dict(source))
    if isinstance(source, (str, os.PathLike)):
        raw = _read(_path(source))
        if os.fspath(source).endswith(".py"):
            raise ConfigError(
                "this is a Python program; a configuration is a YAML file with `instances:`. Run the program by"
                f" `python {os.fspath(source)}`, and give a YAML file here.",
                file=os.fspath(source),
            )
        document = _document(raw, os.fspath(source))
        text = raw.decode("utf-8", "surrogateescape")
        return _validated(document.data, document).read_from(
            Written(os.path.basename(source), text, os.path.dirname(os.path.abspath(source)))
        )
    raise ConfigError(
        f"found {type(source).__name__} {source!r:.60}; a configuration is the path of a YAML file, a dict,"
        " an EtherConfig, or None."
    )


def changed(config: EtherConfig, **changes: Any) -> EtherConfig:
    """The configuration with these fields replaced, validated again; raises `ConfigError`."""
    return _validated({**dict(config), **changes}).read_from(config.written)


def digest_of(config: EtherConfig) -> str:
    """Tells whether two configurations are the same one, whatever their sessions are named. Two objects without a
    `repr` of their own differ."""
    import hashlib
    import json

    text = json.dumps(config.model_dump(exclude={"session"}), default=repr, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def at_place(config: EtherConfig, problem: str, path: str) -> ConfigError:
    """The error for a fault that was found after loading. `path` is dotted, and may lead further in than the file does;
    file and line are those of the nearest key that the file has."""
    if config.written is None:
        return ConfigError(problem, path=path)
    parts = tuple(int(n) if n else name for n, name in re.findall(r"\[(\d+)\]|([^.\[\]]+)", path))
    return ConfigError(problem, file=config.written.file, line=line_at(config, parts), path=path)


def line_at(config: EtherConfig, place: Sequence[str | int]) -> int | None:
    """The line of a key, or of the nearest enclosing key that the file has; None without a file."""
    if config.written is None:
        return None
    from ether.config.yaml_source import read_yaml

    document = read_yaml(config.written.text.encode("utf-8", "surrogateescape"), config.written.file)
    return document.line_of(place)


def _validated(data: dict[Any, Any], document: YamlDocument | None = None) -> EtherConfig:
    try:
        return EtherConfig.model_validate(data)
    except ValidationError as error:
        # Not chained: pydantic's own text repeats each value, passwords included.
        raise config_error(error, EtherConfig, data, document) from None


def _path(source: str | os.PathLike[str]) -> str:
    path = os.fspath(source)
    if "\n" in path or "\r" in path:
        raise ConfigError(
            "found YAML text where the path of a file is expected; save the text in a file and give its path,"
            " or give a dict or an EtherConfig."
        )
    if "\0" in path or not path:
        raise ConfigError(f"found {path!r:.80} where the path of a file is expected.")
    return path


def _document(raw: bytes, path: str) -> YamlDocument:
    """The YAML in a file's bytes, with the values of its secrets."""
    from ether.config.secrets import resolved
    from ether.config.yaml_source import YamlDocument, read_yaml

    document = read_yaml(raw, path)
    try:
        return YamlDocument(path, resolved(document.data, os.environ), document.lines)
    except ConfigError as error:
        place = (error.path or "").split(".")
        raise ConfigError(error.problem, file=path, line=document.line_of(place), path=error.path) from None


def _read(path: str) -> bytes:
    from ether.config.yaml_source import MAX_BYTES

    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise _not_found(path) from error
    except OSError as error:
        raise ConfigError(_why_unreadable(path, error), file=path) from error


def _why_unreadable(path: str, error: OSError) -> str:
    if os.path.isdir(path):  # Windows says "permission denied" for a folder
        return "this is a folder; expected the path of a YAML file."
    return f"cannot read the file: {error.strerror or error}."


def _not_found(path: str) -> ConfigError:
    folder = Path(path).absolute().parent
    siblings = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    nearest = nearest_of(Path(path).name, siblings)
    return ConfigError(f"there is no such file (looked in {folder}).", file=path, nearest=nearest)
