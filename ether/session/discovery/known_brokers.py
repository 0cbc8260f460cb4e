"""Brokers that this user has joined before: a small file in the user's state folder.

For networks where multicast is blocked: an address that was given once is tried again. Newest first, at most `MOST`,
mode 0600, because a URL may hold a password. What follows from the lab key is not written down; it is derived anew, so
that a changed key is not defeated by an old password.

The trap: two programs may write at the same time; the later one wins, and what the other one remembered is lost until
it is joined again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from ether.config.broker_url import broker_address, url_with, url_without_credentials
from ether.errors import ConfigError
from ether.log import get_ether_logger
from ether.security.lab_key import load_key
from ether.system.private_files import read_private, write_private

logger = get_ether_logger("Ether")

MOST = 20


@dataclass(frozen=True, slots=True)
class RememberedBroker:
    """A broker and a session that was joined there. `by_key`: user and password follow from the lab key."""

    url: str = field(repr=False)
    session: str
    host: str
    by_key: bool

    @classmethod
    def from_value(cls, value: object) -> RememberedBroker | None:
        """As it was read; None for what is none."""
        if not isinstance(value, dict) or value.keys() != {"url", "session", "host", "by_key"}:
            return None
        known = cls(**value)
        texts = all(isinstance(text, str) for text in (known.url, known.session, known.host))
        return known if texts and isinstance(known.by_key, bool) else None

    def full_url(self, environment: Mapping[str, str]) -> str | None:
        """The URL with its credentials; None where they follow from a key that is not here any more."""
        if not self.by_key:
            return self.url
        key = load_key(environment)
        if key is None:
            return None
        who = key.credentials()
        return url_with(self.url, who.username, who.password)


def state_file(environment: Mapping[str, str]) -> str:
    """Where they are kept."""
    home = environment.get("HOME") or os.path.expanduser("~")
    folder = environment.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    return os.path.join(folder, "ether", "brokers.json")


def read_remembered(environment: Mapping[str, str]) -> list[RememberedBroker]:
    """Newest first. Never raises: what cannot be read is as good as forgotten."""
    path = state_file(environment)
    try:
        values = read_private(path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        logger.debug("the remembered brokers in %s cannot be read: %s", path, error)
        return []
    entries = values if isinstance(values, list) else []
    return [known for value in entries[:MOST] if (known := RememberedBroker.from_value(value)) is not None]


def remember_broker(url: str, session: str, host: str, environment: Mapping[str, str]) -> None:
    """Put a broker first. Never raises: a state folder that cannot be written costs only this convenience."""
    new = _entry(url, session, host, environment)
    others = [known for known in read_remembered(environment) if (known.url, known.session) != (new.url, session)]
    path = state_file(environment)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write_private(path, [asdict(known) for known in [new, *others][:MOST]])
    except OSError as error:
        logger.debug("the broker could not be remembered in %s: %s", path, error)


def _entry(url: str, session: str, host: str, environment: Mapping[str, str]) -> RememberedBroker:
    try:
        key = load_key(environment)
    except ConfigError:
        key = None
    address = broker_address(url)
    who = key.credentials() if key is not None else None
    by_key = who is not None and (address.username, address.password) == (who.username, who.password)
    return RememberedBroker(url_without_credentials(url) if by_key else url, session, host, by_key)
