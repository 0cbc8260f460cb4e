"""Commands of these tests find no session of anybody else's, and leave nothing in the user's own folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="package", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """State and runtime folders of these tests alone; no multicast."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            (folder / name).mkdir()
            patch.setenv(name, str(folder / name))
        patch.setenv("ETHER_MDNS", "0")
        for name in ("ETHER_SESSION", "ETHER_BROKER", "NO_COLOR", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        yield folder
