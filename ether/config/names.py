"""Which names a session and its instances may have, and how a class path is written.

Names become parts of topics, log lines and command lines. So characters that have a meaning in MQTT, and characters
that a terminal does not show, are refused. Only the error tree is imported here, because every process loads this
module.
"""

from __future__ import annotations

from ether.errors import ConfigError, InvalidName

MAX_NAME_LENGTH = 64
FORBIDDEN_CHARACTERS = "+#/$"
NAME_RULE = (
    f"a name has 1 to {MAX_NAME_LENGTH} printable characters, none of {' '.join(FORBIDDEN_CHARACTERS)},"
    " and no space at either end."
)
PREPARE = "prepare_trial"
"""The sync topic that prepares trials, unless another one is named."""

RECORDER_CLASS_PATH = "ether.recorder.Recorder"
"""The public class path of the recorder."""

_FORMER_CLASS_PATHS = {
    "ether.process.recorder.Recorder": RECORDER_CLASS_PATH,
    "ether.recording.recorder.Recorder": RECORDER_CLASS_PATH,
}

CLASS_PATH_RULE = "a class path is written package.module.Class (names joined by dots, at least one dot)."


def check_name(kind: str, name: object) -> str:
    """Return `name` where it is valid; `kind` says in the message what it names (session, instance, host).

    Raises `InvalidName` with the rule. NUL, control and other invisible characters are not printable.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH:
        raise InvalidName(kind, name, NAME_RULE)
    if not name.isprintable() or name != name.strip() or any(c in name for c in FORBIDDEN_CHARACTERS):
        raise InvalidName(kind, name, NAME_RULE)
    return name


def class_path_of(source: object) -> str:
    """The class path of a class, or of a string that is a class path already. Nothing is imported.

    Raises `ConfigError` for another spelling than `package.module.Class`, and for a class that was defined inside a
    function, which no other process can import.
    """
    if isinstance(source, type):
        return _path_of_class(source)
    if not isinstance(source, str):
        raise ConfigError(f"found {source!r:.60} ({type(source).__name__}); {CLASS_PATH_RULE}")
    if not is_class_path(source):
        dotted = source.replace(":", ".")
        nearest = dotted if is_class_path(dotted) else None
        raise ConfigError(f"found {source!r:.100}; {CLASS_PATH_RULE}", nearest=nearest)
    return source


def current_class_path(class_path: str) -> str:
    """The class path that a class of Ether's has now, where a YAML file or a ledger says a former one."""
    return _FORMER_CLASS_PATHS.get(class_path, class_path)


def is_class_path(text: str) -> bool:
    """True for identifiers joined by dots, at least two of them."""
    parts = text.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def _path_of_class(cls: type) -> str:
    path = f"{cls.__module__}.{cls.__qualname__}"
    if not is_class_path(path):
        raise ConfigError(
            f"found the class {cls.__qualname__!r} of module {cls.__module__!r}, which another process cannot"
            " import: define it at the top of a module, not inside a function."
        )
    return path
