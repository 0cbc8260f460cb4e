"""Tokens and codes: what is accepted, and what somebody without the code can do: guess once."""

from __future__ import annotations

import pytest

from ether.errors import ConfigError
from ether.security.pairing_code import (
    CodeExchange,
    Token,
    WrongProof,
    check_proof,
    new_code,
    proof,
    read_token_or_code,
    same_secret,
)

LAB = "a" * 26


def test_a_token_is_read_as_it_was_written() -> None:
    token = Token.new(LAB, ("10.0.0.1:8884", "[fe80::1]:8884"))
    assert read_token_or_code(f"  {token.text}\n") == token
    bare = Token(LAB, token.secret)
    assert read_token_or_code(bare.text) == bare
    assert token.secret not in repr(token)
    assert Token.new(LAB, ()).secret != token.secret


def test_a_code_is_read_however_it_is_typed() -> None:
    code = new_code()
    assert len(code) == 9
    for typed in (code, code.lower(), code.replace("-", ""), f" {code.replace('-', ' ')} "):
        assert read_token_or_code(typed) == code
    assert len({new_code() for _ in range(50)}) == 50


@pytest.mark.parametrize(
    "text", ["", "ether1:", f"ether1:{LAB}", f"ether2:{LAB}-{LAB}", f"ether1:{LAB}-{LAB}x", "1234-ABCD", "ABC", "O" * 8]
)
def test_everything_else_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="ether pair NAME") as refused:
        read_token_or_code(text)
    assert len(text) < 8 or text not in str(refused.value)


def test_both_sides_make_one_key_only_with_one_code() -> None:
    for typed, same in (("4K7M-QX9P", True), ("4K7M-QX9Q", False)):
        device, lab = CodeExchange(typed, joins=True), CodeExchange("4K7M-QX9P", joins=False)
        ours, theirs = device.key(lab.message), lab.key(device.message)
        assert (ours == theirs) is same
        said = proof(theirs, b"lab", b"certificate")
        if same:
            check_proof(said, ours, b"lab", b"certificate")
            with pytest.raises(WrongProof):
                check_proof(said, ours, b"labc", b"ertificate")
        else:
            with pytest.raises(WrongProof):
                check_proof(said, ours, b"lab", b"certificate")


def test_messages_that_cannot_be() -> None:
    own = CodeExchange("4K7M-QX9P", joins=True)
    for bad in (b"", b"S", b"S" + bytes(32), own.message, b"S" + b"\xff" * 32):
        with pytest.raises(WrongProof):
            CodeExchange("4K7M-QX9P", joins=True).key(bad)


def test_secrets_are_compared_whole() -> None:
    assert same_secret("abc", "abc")
    for other in ("abd", "ab", "", None, 3, ["abc"]):
        assert not same_secret("abc", other)
