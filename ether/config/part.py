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


_LATER = ("as", "result", "min", "max", "stream", "enter", "call")
"""Keys that are left out of plain data where nothing is said, so that the data of a configuration that has none of them
stays what it was, in records and for code of before."""


def without_unsaid(value: Any) -> Any:
    """Plain data of the configuration without those keys that say nothing."""
    if isinstance(value, dict):
        unsaid = {key for key in _LATER if key in value and value[key] in (None, False)}
        if value.get("call", "") is None or "stream" in value:
            unsaid |= {key for key in ("args", "kwargs") if key in value and not value[key]}
        return {key: without_unsaid(each) for key, each in value.items() if key not in unsaid}
    if isinstance(value, (list, tuple)):
        return type(value)([without_unsaid(each) for each in value])
    return value


class ConfigPart(BaseModel, metaclass=_RaisesConfigError):
    """One mapping of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def plain(self, keys: set[str] | None = None) -> dict[str, Any]:
        """As plain data, of these fields or of all, under the names that users write."""
        dumped: dict[str, Any] = without_unsaid(self.model_dump(mode="json", by_alias=True, include=keys))
        return dumped
