"""The brokers that this user has joined before, in a small file in the user's state folder.

For networks that block multicast: an address that was given once is tried again. The file has at most `MOST` brokers,
newest first, and mode 0600, because a URL may contain a password. Credentials that follow from the lab key are not
written; they are derived again at each use, so that no old password survives a change of the key.

The trap: of two programs that write at the same time, the later one wins. The other one's broker is missing until it is
joined again.
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
    """A broker and a session that was joined there. `by_key` tells that user and password follow from the lab key, and
    are not in `url`."""

    url: str = field(repr=False)
    session: str
    host: str
    by_key: bool

    @classmethod
    def from_value(cls, value: object) -> RememberedBroker | None:
        """Read an item of the file; None where it is not valid."""
        if not isinstance(value, dict) or value.keys() != {"url", "session", "host", "by_key"}:
            return None
        known = cls(**value)
        texts = all(isinstance(text, str) for text in (known.url, known.session, known.host))
        return known if texts and isinstance(known.by_key, bool) else None

    def full_url(self, environment: Mapping[str, str]) -> str | None:
        """The URL with credentials; None where they follow from a lab key and there is none now. Raises `ConfigError`
        for a key that cannot be read."""
        if not self.by_key:
            return self.url
        key = load_key(environment)
        if key is None:
            return None
        credentials = key.credentials()
        return url_with(self.url, credentials.username, credentials.password)


def state_file(environment: Mapping[str, str]) -> str:
    """The path of the file."""
    home = environment.get("HOME") or os.path.expanduser("~")
    folder = environment.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    return os.path.join(folder, "ether", "brokers.json")


def read_remembered(environment: Mapping[str, str]) -> list[RememberedBroker]:
    """The remembered brokers, newest first. Never raises: a file that cannot be read counts as empty."""
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
    """Put a broker at the head of the file. Never raises: without a writable state folder, nothing is remembered."""
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
    own = key.credentials() if key is not None else None
    by_key = own is not None and (address.username, address.password) == (own.username, own.password)
    return RememberedBroker(url_without_credentials(url) if by_key else url, session, host, by_key)
