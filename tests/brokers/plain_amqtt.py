"""amqtt as it is, with one user: what our engine is compared with. Run as a script, with `ws` as
third argument behind its WebSocket; says its port; ends with stdin."""

import asyncio
import json
import logging
import os
import sys
import threading
from dataclasses import dataclass

from amqtt.broker import Broker
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session


class OneUser(BaseAuthPlugin):
    """Lets in one user, so that a refusal can be provoked."""

    @dataclass
    class Config:
        username: str
        password: str

    async def authenticate(self, *, session: Session) -> bool:
        return session.username == self.config.username and session.password == self.config.password


async def main() -> None:
    logging.disable(logging.CRITICAL)
    user = {"username": sys.argv[1], "password": sys.argv[2]}
    listeners = {"default": {"type": sys.argv[3] if len(sys.argv) > 3 else "tcp", "bind": "127.0.0.1:0"}}
    broker = Broker({"listeners": listeners, "plugins": {"__main__.OneUser": user}})
    await broker.start()
    port = broker._servers["default"].instance.sockets[0].getsockname()[1]
    print(json.dumps({"port": port}), flush=True)
    await asyncio.Event().wait()


def end_with_stdin() -> None:
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_stdin, daemon=True).start()
    asyncio.run(main())
