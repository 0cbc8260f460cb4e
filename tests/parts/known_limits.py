"""What is known not to work over a broker that is not ours: a table of each suite, whose entries have to fail.

An entry that passes fails its test and says so: it is out of date. The exception is a race, which may be won."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from foreign_brokers import FOREIGN


@dataclass(frozen=True)
class KnownLimit:
    """Why a test fails over a broker. `race`: it fails now and then."""

    why: str
    race: bool = False


def expect_known_limit(
    request: pytest.FixtureRequest, known: Mapping[tuple[str, str], KnownLimit], broker: str
) -> None:
    """Expect the failure of this test over that broker, where the table has it: by the name of its function, or by the
    name with parameters, as pytest prints it, without the broker's."""
    name, bare = request.node.name, request.node.originalname
    parameters = name[len(bare) + 1 : -1].replace(f"{broker}-", "").replace(f"-{broker}", "")
    limit = known.get((broker, bare)) or known.get((broker, f"{bare}[{parameters}]"))
    if limit is not None:
        request.node.add_marker(pytest.mark.xfail(reason=limit.why, strict=not limit.race))


def foreign_parameters(*names: str) -> list[Any]:
    """Parameters of a fixture: each broker, skipped with the reason where it is not tried."""
    return [
        pytest.param(name, marks=pytest.mark.skipif(missing is not None, reason=missing or ""))
        for name in names
        for missing in [FOREIGN[name].skipped()]
    ]
