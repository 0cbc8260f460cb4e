"""The base of every model of the configuration: frozen, and closed against unknown keys.

A model built directly in Python (`EtherInstanceConfig(class_path=…)`) raises the same `ConfigError` as a file does.
The trap: if `__init__` converted the errors, pydantic would call it for nested models, too, and would wrap the inner
`ConfigError` in an outer error. Python calls the metaclass's `__call__` only where code calls the class itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from ether.config.problems import config_error

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _RaisesConfigError(ModelMetaclass):
    def __call__(cls, *args: Any, **settings: Any) -> Any:  # noqa: N805 (a metaclass)
        try:
            return super().__call__(*args, **settings)
        except ValidationError as error:
            raise config_error(error, cast("type[BaseModel]", cls), settings) from None


class ConfigPart(BaseModel, metaclass=_RaisesConfigError):
    """One mapping of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")
