"""Make an `EtherConfig` out of whatever `ether.tap()` was given."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
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
    """The configuration in a YAML file (its path), in a dict, or as it is; None is the default configuration.

    Raises `ConfigError`: what was found, where (file and line, if it came from a file), and what would be valid.
    Where several things are wrong, all are named, up to ten, and the error's attributes describe the first.
    """
    if isinstance(source, EtherConfig):
        return source
    if source is None:
        return EtherConfig()
    if isinstance(source, Mapping):
        return _validated(dict(source))
    if isinstance(source, (str, os.PathLike)):
        raw = _read(_path(source))
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
    """A configuration in which some things are different; raises `ConfigError`."""
    return _validated({**dict(config), **changes}).read_from(config.written)


def at_place(config: EtherConfig, problem: str, path: str) -> ConfigError:
    """The error for something in a configuration that was found to be wrong later; `path` is dotted, and may go further
    than what is written. With file and line, where it came from a file."""
    if config.written is None:
        return ConfigError(problem, path=path)
    from ether.config.yaml_source import read_yaml

    document = read_yaml(config.written.text.encode("utf-8", "surrogateescape"), config.written.file)
    parts = tuple(int(n) if n else name for n, name in re.findall(r"\[(\d+)\]|([^.\[\]]+)", path))
    return ConfigError(problem, file=config.written.file, line=document.line_of(parts), path=path)


def _validated(data: dict[Any, Any], document: YamlDocument | None = None) -> EtherConfig:
    try:
        return EtherConfig.model_validate(data)
    except ValidationError as error:
        # Pydantic's own text repeats every value, passwords included: it is not chained.
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
    """The YAML in a file's bytes."""
    # PyYAML takes 18 ms to import, and a configuration given as a dict does without
    from ether.config.yaml_source import read_yaml

    return read_yaml(raw, path)


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
