"""A store of items, in a process of its own. An ordinary class: it works the same without Ether."""

from __future__ import annotations

from ether import ether_get, ether_save


class DataService:
    """Keeps items by their id."""

    def __init__(self) -> None:
        self.items: dict[int, dict[str, object]] = {}

    @ether_save
    def save_item(self, id: int, name: str, tags: list[str] | None = None) -> int:
        """Keep a new item; an id that exists already is refused."""
        if id in self.items:
            raise ValueError(f"item {id} exists already")
        self.items[id] = {"id": id, "name": name, "tags": tags or []}
        return id

    @ether_get
    def get_item(self, id: int) -> dict[str, object]:
        """The item with this id; raises KeyError for an unknown one."""
        return self.items[id]
