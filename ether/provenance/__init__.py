"""Why a value is what it is: code, settings, machine, and the messages that led to it."""
