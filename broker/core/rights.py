"""Who is let in, and who may publish, subscribe and be delivered what. Pure.

How it works. `Logins` holds the users and a table of `Rule`s, one for each user, as the settings file gives them. A
client's rights are made when it enters: its user's rule, with `%c` and `%u` replaced. A user without a rule may do
everything if it is the session's own (`username` of the settings), or known by its certificate where there are no rules
at all; else nothing.

Promise: passwords are compared in constant time. A subscription is granted only where every topic that it could match
is allowed: `a/+` does not allow `a/#`. What is delivered is checked once more, topic by topic, so that a changed table
holds at once. The trap: a client id or a user with a `/` or a wildcard would widen a filter that it is put into, so
such a filter allows nothing.
"""

import hmac
from collections.abc import Callable, Collection, Mapping

from broker.core.rule import Rule
from broker.wire.packets import BAD_LOGIN, SUCCESS
from broker.wire.requests import ConnectRequest
from broker.wire.topics import covers, covers_filter, shared_parts

REMEMBERED_TOPICS = 4_096
LONGEST_REMEMBERED = 512


class Rights:
    """What one client may do."""

    def __init__(self, rule: Rule, user: bytes, client_id: bytes) -> None:
        self._publish = _filled(rule.publish, user, client_id)
        self._subscribe = _filled(rule.subscribe, user, client_id)
        self._receive = _filled(rule.receive, user, client_id)
        self._known_publish: dict[bytes, bool] = {}
        self._known_receive: dict[bytes, bool] = {}

    def may_publish(self, topic: bytes) -> bool:
        """Whether it may publish to this topic, its will included."""
        return _asked(self._known_publish, self._publish, topic)

    def may_receive(self, topic: bytes) -> bool:
        """Whether a message of this topic may be delivered to it."""
        return _asked(self._known_receive, self._receive, topic)

    def may_subscribe(self, text: bytes) -> bool:
        """Whether every topic that this filter matches may be subscribed to; of a shared one its filter counts."""
        _, plain = shared_parts(text)
        return any(covers_filter(allowed, plain) for allowed in self._subscribe)


class Logins:
    """The users, their passwords and their rules."""

    def __init__(
        self,
        owner: str,
        passwords: Mapping[str, str],
        rules: Mapping[str, Rule],
        revoked: Collection[str] = (),
    ) -> None:
        """`owner` is the session's own user; `revoked` are users whose certificates were taken back."""
        self._owner = owner.encode()
        self._passwords = {user.encode(): password.encode() for user, password in passwords.items()}
        self._rules = {user.encode(): rule for user, rule in rules.items()}
        self._revoked = frozenset(user.encode() for user in revoked)

    def admits(self, request: ConnectRequest) -> int:
        """The reason code for a CONNECT: whether user and password belong together."""
        if request.by_certificate:  # TLS has checked it; it may have been taken back since
            return BAD_LOGIN if not request.username or request.username in self._revoked else SUCCESS
        known = self._passwords.get(request.username or b"")
        # Compared also where there is no such user: how long it takes must not tell.
        same = hmac.compare_digest(request.password or b"", known if known is not None else b"\x00")
        return SUCCESS if same and known is not None else BAD_LOGIN

    def admit(self, request: ConnectRequest, answer: Callable[[int], None]) -> int | None:
        """The same; None where others are asked, and `answer` is called with the reason code later."""
        return self.admits(request)

    def knows(self, user: bytes, by_certificate: bool = False) -> bool:
        """Whether this user may still be here."""
        return user not in self._revoked if by_certificate else user in self._passwords

    def rights_of(self, user: bytes, client_id: bytes, by_certificate: bool = False) -> Rights | None:
        """What this client may do; None is everything."""
        rule = self._rules.get(user)
        if rule is None:
            if user == self._owner or (by_certificate and not self._rules):
                return None
            rule = Rule()
        return Rights(rule, user, client_id)


def _filled(texts: tuple[str, ...], user: bytes, client_id: bytes) -> tuple[bytes, ...]:
    """The filters with `%u` and `%c` replaced, without those that this would widen."""
    filled = []
    for text in texts:
        encoded = text.encode()
        for mark, value in ((b"%u", user), (b"%c", client_id)):
            if mark in encoded and any(sign in value for sign in (b"/", b"+", b"#")):
                break
            encoded = encoded.replace(mark, value)
        else:
            filled.append(encoded)
    return tuple(filled)


def _asked(known: dict[bytes, bool], allowed: tuple[bytes, ...], topic: bytes) -> bool:
    answer = known.get(topic)
    if answer is None:
        answer = any(covers(text, topic) for text in allowed)
        if len(topic) <= LONGEST_REMEMBERED:
            if len(known) >= REMEMBERED_TOPICS:
                known.clear()
            known[topic] = answer
    return answer
