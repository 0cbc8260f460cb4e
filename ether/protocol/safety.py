"""The words of the safe state that a person asks for, which instances and those who ask have to agree on."""

from __future__ import annotations

SAFE = "safe"
"""The control verb: `{"instances": [names], "why": text}`. An empty `why` ends the state."""

SAFE_STATE = "safe_state"
"""In an announcement: the calls that the instance's safe state makes. In an answer: what failed where no call did."""
