"""The message broker of a session, as a process of its own.

For: `python -I -m broker SETTINGS_FILE` runs one broker, either a mosquitto program or amqtt in pure Python, and lives
exactly as long as the process that started it. Nothing here imports the framework, and the framework never imports this
package: they meet at the settings file, the ready line and the exit codes (docs/brokers.md).

The trap: a process that only supervises mosquitto should cost next to nothing, so a module here imports what it needs
when it needs it. asyncio and amqtt are paid for by the amqtt engine alone.
"""
