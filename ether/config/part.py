"""The base of every model of the configuration: frozen, and closed against unknown keys.

A model built directly in Python (`EtherInstanceConfig(class_path=…)`) raises the same `ConfigError` as a file does.
The trap: doing this in `__init__` would make pydantic call it for nested models too, and wrap the inner errors
beyond recognition; a metaclass is only asked by people who call the class.
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
