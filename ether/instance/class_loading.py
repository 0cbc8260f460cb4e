"""From a class path to the class, as the main program would find it.

The one special case is a class that is defined in the very script that is running: importing that module would run
the script again, so its definitions are taken from the source instead (see `script`).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from ether.errors import ConfigError
from ether.instance.script_class import module_from_script


def find_class(class_path: str, script: str | None) -> type:
    """The class at `package.module.Class` (or `….Outer.Inner`).

    `script` is the file that the main program runs, if it runs one. Raises `ConfigError` where there is no such
    module or class, and whatever the user's own module raises when it is imported.
    """
    parts = class_path.split(".")
    module, length = _deepest_module(parts, script)
    if module is None:
        raise ConfigError(f"there is no module {parts[0]!r} on the import path: {_places()}", path=class_path)
    return _class_in(module, parts[length:], class_path)


def _deepest_module(parts: list[str], script: str | None) -> tuple[ModuleType | None, int]:
    """The module that a class path leads to, and how many of its parts that took. From the outside in, because to
    look for `script.Class` as a module would import, that is run, the script."""
    found = 0
    for length in range(1, len(parts)):
        name = ".".join(parts[:length])
        spec = None if name == "__main__" else _spec(name)
        if _is_script(name, spec, script):
            return _from_script(name, script, parts[length]), length
        if spec is None:
            break
        found = length
        if spec.submodule_search_locations is None:
            break
    return (importlib.import_module(".".join(parts[:found])) if found else None), found


def _from_script(name: str, script: str | None, attribute: str) -> ModuleType:
    if script is None:
        raise ConfigError(
            "a class defined in a notebook or at a prompt cannot run in a process of its own: put it in a file",
            path=f"{name}.{attribute}",
        )
    return module_from_script(name, script, attribute)


def _spec(name: str) -> ModuleSpec | None:
    """Where a module is, without running it; None where there is no such module."""
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # a module made by hand, without a spec
        return ModuleSpec(name, None)


def _is_script(name: str, spec: ModuleSpec | None, script: str | None) -> bool:
    if name == "__main__":
        return True
    if script is None:
        return False
    if spec is None:
        return name == os.path.splitext(os.path.basename(script))[0]
    return spec.origin is not None and os.path.exists(spec.origin) and os.path.samefile(spec.origin, script)


def _class_in(module: ModuleType, names: list[str], class_path: str) -> type:
    found: object = module
    for name in names:
        if not hasattr(found, name):
            raise ConfigError(_no_such_class(module, found, name), path=class_path)
        found = getattr(found, name)
    if not isinstance(found, type):
        raise ConfigError(f"is a {type(found).__name__}, not a class", path=class_path)
    return found


def _no_such_class(module: ModuleType, holder: object, name: str) -> str:
    import difflib

    classes = [key for key, value in vars(holder).items() if isinstance(value, type)]
    nearest = difflib.get_close_matches(name, classes, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"{module.__name__} ({getattr(module, '__file__', 'built in')}) has no class {name!r}.{hint}"


def _places() -> str:
    return ", ".join(place or "." for place in sys.path)
