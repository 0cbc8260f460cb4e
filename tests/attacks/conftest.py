"""The mark `attack`: which row of the table in docs/security.md a test is."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "attack(row, what, how): a row of the table in docs/security.md")
