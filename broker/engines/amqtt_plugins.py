"""The plugins of amqtt, run over our own core. All that is used of amqtt is named here:

    amqtt.__version__                      plugins are written against one version's interface: others are refused
    amqtt.plugins.manager.PluginManager    loads the classes that the settings name, with their `Config`
    amqtt.plugins.base.BaseAuthPlugin      `authenticate(session=…)`: who may enter
    amqtt.plugins.base.BaseTopicPlugin     `topic_filtering(session=…, topic=…, action=…)`: who may do what
    amqtt.session.Session                  what plugins are told of a client: user, password, client id
    amqtt.contexts                         `BaseContext` and `Action`

How it works. A login is asked in a thread with an asyncio loop of its own, so that a plugin may take its time (a hash,
a database, a web service): that client waits, nobody else does. A topic is asked on the broker's thread, at each
message, filter and delivery: the answer has to come at once. A plugin that waits there, or raises, has refused, and is
named.

Promise: amqtt and asyncio are loaded only where the settings name plugins (18 MB). The trap: the broker runs isolated
(`-I`), so a plugin has to be an installed module.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

from broker.core.rights import Logins, Rights
from broker.core.rule import Rule
from broker.failures import EngineMissing, SettingsRefused
from broker.wire.packets import BAD_LOGIN, SUCCESS
from broker.wire.requests import ConnectRequest
from broker.wire.topics import shared_parts

OLDEST, BEFORE = (0, 12, 1), (0, 13)
LOGIN_S = 10.0
"""How long plugins may take for a login."""
REMEMBERED_SESSIONS = 1_000


def amqtt_version() -> str:
    """The version of the installed amqtt. Raises `EngineMissing`."""
    try:
        import amqtt
    except ImportError as error:
        raise EngineMissing(f"The package amqtt cannot be imported: {error}.") from error
    return amqtt.__version__


def require_tested(version: str) -> str:
    """The version. Raises `EngineMissing` for an amqtt that was never tested."""
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdecimal())
    if not OLDEST <= numbers < BEFORE:
        raise EngineMissing(f"amqtt {version} was never tested here: install amqtt>=0.12.1,<0.13, or mosquitto.")
    return version


class Plugins:
    """The plugins of one broker. `soon` runs something on the broker's thread."""

    def __init__(
        self,
        chosen: Mapping[str, Mapping[str, Any]],
        warn: Callable[[str], None],
        soon: Callable[[Callable[[], None]], None],
    ) -> None:
        import asyncio

        from amqtt.contexts import BaseContext
        from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
        from amqtt.plugins.manager import PluginManager

        self._warn, self._soon = warn, soon
        self._warned: set[str] = set()
        self._run_soon, self._wait_for = asyncio.run_coroutine_threadsafe, asyncio.wait_for
        self._asyncio = asyncio.new_event_loop()
        context: Any = BaseContext()
        context.config = {"plugins": {path: dict(config) for path, config in chosen.items()}}
        try:
            self._manager: Any = PluginManager("broker.plugins", context, self._asyncio)
        except Exception as error:
            self._asyncio.close()
            raise SettingsRefused(f"plugins: {_reason(error)}.") from error
        self.auths = [plugin for plugin in self._manager.plugins if isinstance(plugin, BaseAuthPlugin)]
        self.topics = [plugin for plugin in self._manager.plugins if isinstance(plugin, BaseTopicPlugin)]
        for plugin in self._manager.plugins:
            if plugin not in self.auths and plugin not in self.topics:
                self._asyncio.close()
                name = type(plugin).__name__
                raise SettingsRefused(f"plugins: {name} is no auth and no topic plugin; others are not run here.")
        self._thread = threading.Thread(target=self._asyncio.run_forever, name="plugins", daemon=True)
        self._thread.start()

    def login(self, session: Any, answer: Callable[[bool], None]) -> None:
        """Ask all auth plugins; `answer` is called on the broker's thread: True where all that know say so."""

        async def asked() -> None:
            try:
                found = await self._wait_for(self._manager.map_plugin_auth(session=session), LOGIN_S)
                said = [each for each in found.values() if each is not None]
                good = bool(said) and all(said)
            except Exception as error:  # noqa: BLE001  a plugin's: whatever it is, nobody enters
                self.say_once(f"a plugin failed at a login: {error!r}: nobody enters by it")
                good = False
            self._soon(lambda: answer(good))

        self._run_soon(asked(), self._asyncio)

    def allow(self, session: Any, topic: str, action: Any) -> bool:
        """Whether all topic plugins allow it, at once."""
        for plugin in self.topics:
            name = type(plugin).__name__
            try:
                question = plugin.topic_filtering(session=session, topic=topic, action=action)
                question.send(None)
            except StopIteration as done:
                if not done.value:
                    return False
                continue
            except Exception as error:  # noqa: BLE001  a plugin's: whatever it is, it has not allowed it
                self.say_once(f"the plugin {name} failed at a topic: {error!r}: it counts as refused")
                return False
            question.close()
            self.say_once(f"the plugin {name} waits where a topic has to be answered at once: it counts as refused")
            return False
        return True

    def say_once(self, text: str) -> None:
        """A warning for people; the same one only once."""
        if text not in self._warned and len(self._warned) < REMEMBERED_SESSIONS:
            self._warned.add(text)
            self._warn(text)

    def close(self) -> None:
        """End the plugins, and their thread."""
        closing = self._run_soon(self._manager.map_plugin_close(), self._asyncio)
        try:
            closing.result(1.0)
        except Exception as error:  # noqa: BLE001  a plugin's: the broker ends all the same
            self.say_once(f"a plugin failed at its end: {error!r}")
        self._asyncio.call_soon_threadsafe(self._asyncio.stop)
        self._thread.join(1.0)
        if not self._thread.is_alive():
            self._asyncio.close()


class PluginLogins(Logins):
    """Who is in the settings is let in by them; everybody else by the auth plugins. What one may do says the table;
    where a user is not in it, the topic plugins alone; where there are none, nothing. The session's own user may do
    everything."""

    def __init__(
        self,
        owner: str,
        passwords: Mapping[str, str],
        rules: Mapping[str, Rule],
        plugins: Plugins,
        revoked: Collection[str] = (),
    ) -> None:
        super().__init__(owner, passwords, rules, revoked)
        self._plugins = plugins
        self._sessions: dict[tuple[bytes, bytes], Any] = {}

    def admit(self, request: ConnectRequest, answer: Callable[[int], None]) -> int | None:
        user = request.username or b""
        if request.by_certificate or user in self._passwords or not self._plugins.auths:
            return self.admits(request)
        session = self._session(user, request.client_id, request.password or b"")
        self._plugins.login(session, lambda good: answer(SUCCESS if good else BAD_LOGIN))
        return None

    def knows(self, user: bytes, by_certificate: bool = False) -> bool:
        return (bool(self._plugins.auths) and not by_certificate) or super().knows(user, by_certificate)

    def rights_of(self, user: bytes, client_id: bytes, by_certificate: bool = False) -> Rights | None:
        table = super().rights_of(user, client_id, by_certificate)
        if user == self._owner or not self._plugins.topics:
            return table
        session = self._sessions.get((user, client_id)) or self._session(user, client_id, b"")
        return PluginRights(table if user in self._rules else None, self._plugins, session)

    def _session(self, user: bytes, client_id: bytes, password: bytes) -> Any:
        from amqtt.session import Session

        session = Session()
        session.username, session.client_id = user.decode() or None, client_id.decode()
        session.password = password.decode(errors="replace") or None
        if len(self._sessions) >= REMEMBERED_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[user, client_id] = session
        return session


class PluginRights(Rights):
    """What one client may do: what the table allows, where it is in there, and every topic plugin, too."""

    def __init__(self, table: Rights | None, plugins: Plugins, session: Any) -> None:
        from amqtt.contexts import Action

        self._table, self._plugins, self._session, self._actions = table, plugins, session, Action

    def may_publish(self, topic: bytes) -> bool:
        allowed = self._table is None or self._table.may_publish(topic)
        return allowed and self._plugins.allow(self._session, topic.decode(), self._actions.PUBLISH)

    def may_receive(self, topic: bytes) -> bool:
        allowed = self._table is None or self._table.may_receive(topic)
        return allowed and self._plugins.allow(self._session, topic.decode(), self._actions.RECEIVE)

    def may_subscribe(self, text: bytes) -> bool:
        allowed = self._table is None or self._table.may_subscribe(text)
        plain = shared_parts(text)[1].decode()
        return allowed and self._plugins.allow(self._session, plain, self._actions.SUBSCRIBE)


def _reason(error: BaseException) -> str:
    """The innermost text of an error of amqtt's loader, which says least in the outermost."""
    texts = [str(error)]
    while (error := error.__cause__ or error.__context__) is not None:  # type: ignore[assignment]
        texts.append(str(error))
    return next((text for text in reversed(texts) if text), type(error).__name__).rstrip(".")
