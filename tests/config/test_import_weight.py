"""Names and broker URLs cost no pydantic, and a configuration given as a dict costs no YAML."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import ether.config, ether.config.names", ["pydantic", "yaml"]),
        ("from ether.config import load_config; load_config({})", ["yaml"]),
        ("from ether.config.broker_url import broker_address; broker_address('mqtt://host')", ["pydantic"]),
        ("import ether.log, ether.utils", ["pydantic", "yaml", "sysconfig"]),
        ("import ether.security", ["secrets", "hmac"]),
    ],
)
def test_what_is_not_imported(statement: str, absent: list[str]) -> None:
    # what the interpreter's own start imported does not count
    program = (
        f"import sys; before = set(sys.modules)\n{statement}\nprint(*(set({absent!r}) & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_public_names_resolve() -> None:
    import ether.config

    assert all(getattr(ether.config, name) is not None for name in ether.config.__all__)
    assert set(ether.config.__all__) <= set(dir(ether.config))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ether.config.nonsense
