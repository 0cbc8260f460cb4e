"""`python -I -m broker SETTINGS_FILE`: one broker, for as long as its parent lives. Isolated (`-I`), because a user's
own `broker.py` in the working directory must not be imported instead.

| exit code | meaning |
| --- | --- |
| 0 | the broker was asked to stop: a line "stop" on stdin, the end of stdin, SIGTERM or SIGHUP |
| 2 | the settings file was refused |
| 3 | the engine is not installed, or in a version that was never tested |
| 4 | another program listens at the address |
| 5 | the engine would not start, or ended by itself |

Promise: one ready line on stdout when a client can connect; one sentence on stderr for every code but 0; at the end,
the private folder and every child process are gone, unless this process is killed (docs/brokers.md).
"""

import os
import sys

from broker import settings
from broker.events import EventWriter
from broker.failures import BrokerFailure, ExitCode, SettingsRefused
from broker.lifeline import Lifeline
from broker.listeners import private


def main(arguments: list[str]) -> ExitCode:
    """Run one broker to its end and give back the exit code."""
    lifeline, events = Lifeline(), EventWriter()
    try:
        if len(arguments) != 1:
            raise SettingsRefused("Usage: python -I -m broker SETTINGS_FILE")
        _serve(settings.load(arguments[0]), events, lifeline)
    except BrokerFailure as failure:
        return _report(failure, events)
    except Exception as error:  # noqa: BLE001 (main: every error must end as a sentence and an exit code)
        import traceback

        traceback.print_exc()
        return _report(error, events)
    finally:
        events.close()
    return ExitCode.OK


def _serve(chosen: settings.Settings, events: EventWriter, lifeline: Lifeline) -> None:
    try:
        if _engine(chosen) == "mosquitto":
            from broker.engines import mosquitto_engine

            mosquitto_engine.serve(chosen, events, lifeline)
        else:
            from broker.engines import amqtt_engine

            amqtt_engine.serve(chosen, events, lifeline)
    except BrokenPipeError:
        return  # the parent died before it could read the ready line
    finally:
        if chosen.private_dir is not None:
            private.remove(chosen.private_dir)


def _engine(chosen: settings.Settings) -> str:
    if chosen.engine != "auto":
        return chosen.engine
    if settings.needs_amqtt(chosen):
        return "amqtt"
    from broker.engines import mosquitto_engine

    if mosquitto_engine.find() is not None:
        return "mosquitto"
    return "amqtt"


def _report(failure: Exception, events: EventWriter) -> ExitCode:
    print(f"broker: {failure}", file=sys.stderr, flush=True)
    code = failure.code if isinstance(failure, BrokerFailure) else ExitCode.ENGINE_FAILED
    if code is ExitCode.ENGINE_FAILED:
        events.failed(str(failure))
    return code


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(exit_code)  # not sys.exit: everything is cleaned up already, and the parent waits 20 ms less
