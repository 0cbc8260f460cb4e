"""The rule for names, and how class paths are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.config.names import FORBIDDEN_CHARACTERS, MAX_NAME_LENGTH, NAME_RULE, check_name, class_path_of
from ether.errors import ConfigError, InvalidName


@pytest.mark.parametrize("name", ["a", "camera1", "Kamera für Öl", "x" * 64, "a.b-c_d", "温度"])
def test_good_names(name: str) -> None:
    assert check_name("instance", name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 65,
        "a+b",
        "a#",
        "/",
        "$SYS",
        "a\0",
        "a\nb",
        "\x7f",
        "a\u2028b",
        "\u200b",
        "\ud800",
        " a",
        "a ",
        None,
        3,
    ],
)
def test_bad_names_are_refused_with_the_rule(name: object) -> None:
    with pytest.raises(InvalidName) as caught:
        check_name("session", name)
    assert NAME_RULE in str(caught.value)
    assert (caught.value.kind, caught.value.name) == ("session", name)


@given(st.text(max_size=80))
def test_every_text_is_a_name_or_is_refused(name: str) -> None:
    try:
        check_name("instance", name)
    except InvalidName:
        return
    assert 0 < len(name) <= MAX_NAME_LENGTH
    assert not set(name) & set(FORBIDDEN_CHARACTERS)
    assert "\0" not in name


@pytest.mark.parametrize("path", ["", "Thing", ".a", "a.", "a..B", "a b.C", "a-b.C", "a.1", "a/b.py", "a.B()"])
def test_bad_class_paths(path: str) -> None:
    with pytest.raises(ConfigError, match=r"package\.module\.Class"):
        class_path_of(path)


def test_class_paths_of_classes() -> None:
    assert class_path_of(ConfigError) == "ether.errors.ConfigError"
    assert class_path_of("a.b.Outer.Inner") == "a.b.Outer.Inner"
