"""Why a start fails where the cause lies outside of the class: names, the locale, limits of the system."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from ether.config import load_config
from ether.launch.start_reasons import placed
from ether.runs.plan.source_check import missing_module_text
from ether.system.limits import limit_words


def test_a_file_that_hides_a_module_of_the_standard_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("instances: {cam: {class_path: cameras.Cam}}")
    (tmp_path / "statistics.py").write_text("")
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue" / "__init__.py").write_text("")
    config = load_config(tmp_path / "lab.yaml")
    wrong = f"Traceback:\nImportError: cannot import name 'mean' from 'statistics' ({tmp_path / 'statistics.py'})"
    assert config.written is not None
    hides = f"statistics in {config.written.folder} hides the module of that name of Python's standard library: rename"
    assert hides in placed({"cam": wrong}, config)["cam"]
    assert "hides" not in placed({"cam": "Traceback:\nValueError: statistics"}, config)["cam"]
    missing = "Traceback:\nAttributeError: module 'queue' has no attribute 'Queue'"
    assert "\nqueue in " in placed({"cam": missing}, config)["cam"]


def test_a_name_that_the_locale_cannot_say_is_the_locales_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab.yaml").write_text("instances: {}")
    config = load_config(tmp_path / "lab.yaml")
    assert "The locale" not in missing_module_text("käse.Cam", config)
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    assert "The locale of this terminal is C" in missing_module_text("käse.Cam", config)
    assert "The locale" not in missing_module_text("cheese.Cam", config)


def test_a_limit_of_the_system_is_named() -> None:
    assert "may not open more files than " in limit_words(OSError(errno.EMFILE, "")) or os.name == "nt"
    assert "`ulimit -n 4096`" in limit_words(OSError(errno.EMFILE, ""))
    assert "`ulimit -u`" in limit_words(OSError(errno.EAGAIN, ""))
    assert "no memory" in limit_words(OSError(errno.ENOMEM, ""))
    assert limit_words(OSError(errno.ENOENT, "")) == ""
