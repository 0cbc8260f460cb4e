"""The message broker of a session, as a process of its own.

For: `python -I -m broker SETTINGS_FILE` runs one broker, either a mosquitto program or amqtt in pure Python, for
exactly as long as the process that started it lives. Nothing here imports the framework, and the framework never
imports this package: they share the settings file, the ready line and the exit codes (docs/brokers.md).

    __main__  settings  failures  events  lifeline      the process: what it reads, says, and when it ends
    engines/    mosquitto as a child program; amqtt in this process
    listeners/  ports, the private folder, a probe; one client's connection (amqtt)
    core/       sessions, subscriptions, queues (amqtt)
    wire/       MQTT packets and topics (amqtt); pure
    orphans     a child that ends with this process, on each operating system

The trap: a process that only supervises mosquitto should cost next to nothing, so modules are imported where they are
needed. Only the amqtt engine loads asyncio and amqtt.
"""
