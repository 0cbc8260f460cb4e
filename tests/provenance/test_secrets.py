"""What is kept of settings has no secrets, and is otherwise what it was."""

from __future__ import annotations

import pytest

from ether.provenance.git_state import without_secrets
from ether.provenance.secrets import is_secret_name, masked, masked_configuration, masked_yaml, without_url_passwords


@pytest.mark.parametrize("name", ["password", "api_key", "apiKey", "KEY", "labToken", "DB_PASSWORD", "client-secret"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["keyboard", "monkey", "exposure", "tokenizer", "passes", "secretary", ""])
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)


def test_values_are_masked_by_their_name_at_every_depth() -> None:
    value = {"user": "ada", "login": {"password": "pw", "retries": 3}, "tokens": ["a", {"b": "c"}], "key": None}
    assert masked(value) == {
        "user": "ada", "login": {"password": "***", "retries": 3}, "tokens": ["***", {"b": "***"}], "key": None,
    }  # fmt: skip


def test_passwords_of_urls_are_masked_wherever_they_stand() -> None:
    text = "see mqtt://lab:s3cr:et@host:1883/x and https://host/a:b@c, or a@b"
    assert without_url_passwords(text) == "see mqtt://lab:***@host:1883/x and https://host/a:b@c, or a@b"
    assert masked({"broker": {"url": "mqtt://lab:pw@host"}}) == {"broker": {"url": "mqtt://lab:***@host"}}


def test_names_of_instances_and_methods_are_no_names_of_secrets() -> None:
    config = {
        "instances": {"token": {"class_path": "a.B", "kwargs": {"token": "pw"}}},
        "registry": {"lab.key": {"methods": {"password": {"ether_get": [{"concurrency": 1}]}}}},
    }
    assert masked_configuration(config) == {
        **config,
        "instances": {"token": {**config["instances"]["token"], "kwargs": {"token": "***"}}},
    }


YAML = """\
# our bench
broker: mqtt://lab:hush@10.0.0.1   # the loud one
instances:
  key:                             # a name
    class_path: lab.Door
    kwargs: {api_key: "hush, \\"hush\\"", limit: 3}
  other:
    class_path: lab.Door
    kwargs:
      password: |
        hush
        hush
      token: hush   # do not tell
      secret:
        inner: hush
      shared_key: &k hush
      again_key: *k
"""


def test_yaml_keeps_its_text_without_its_secrets() -> None:
    kept = masked_yaml(YAML)
    assert "hush" not in kept
    for line in ("# our bench", "  key:                             # a name", "# the loud one", "# do not tell"):
        assert line in kept
    assert "kwargs: {api_key: ***, limit: 3}" in kept
    assert "broker: mqtt://lab:***@10.0.0.1" in kept


def test_what_is_no_yaml_is_masked_line_by_line() -> None:
    assert masked_yaml("a: [1,\npassword: hush\n}") == "a: [1,\npassword: ***\n}"


def test_a_difference_has_no_secrets() -> None:
    diff = (
        b"diff --git a/ether.yaml b/ether.yaml\n@@ -1 +1 @@\n-  password: old\n+  password: new\n limit: 3\n"
        b"diff --git a/lab.py b/lab.py\n@@ -1 +1 @@\n-key = old\n+tap(broker='mqtt://a:new@b')\n \xff\xfe\n"
    )
    kept = without_secrets(diff)
    assert b"-  password: ***\n+  password: ***\n limit: 3\n" in kept
    assert b"-key = old\n+tap(broker='mqtt://a:***@b')\n \xff\xfe\n" in kept
