"""The table of docs/troubleshooting.md: the text of each error of Ether's, from the source of the errors. `python
tests/parts/error_table.py --write` writes it anew; tests/spec/test_error_table.py compares it with the page.

A text that is made in several pieces, or that is the caller's own, cannot be read from the source; such a class has its
row without one.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import ether.errors as tree
from ether.errors import EtherError

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
BEGIN, END = "<!-- errors -->\n", "<!-- end -->"
HEAD = "| text | error | means |\n| --- | --- | --- |\n"
PAGES = {
    "calls": "calls.md", "ledger": "ledger.md", "runs": "experiments.md", "reading": "data.md", "saving": "saving.md",
    "rights": "security.md", "devices": "drivers.md", "lineage": "provenance.md",
}  # fmt: skip
"""For each module of errors the page that explains them."""
SPECIAL = {
    "ConfigError": "configuration.md", "EncodeError": "values.md", "BrokerUnreachable": "brokers.md",
    "BrokerRefuses": "brokers.md", "NotAMember": "pairing.md", "NotEncrypted": "pairing.md",
    "WrongLabKey": "pairing.md", "CertificateRefused": "pairing.md", "ServiceFailed": "services.md",
    "SeveralSessions": "discovery.md",
    "SessionNotFound": "discovery.md", "SessionRuns": "cli.md", "NameTaken": "supervision.md",
    "NotReloaded": "supervision.md", "MarkError": "classes.md", "ValidationFailed": "classes.md",
}  # fmt: skip


def errors() -> list[type[EtherError]]:
    """Every class of the tree that users can meet."""
    found = {each for each in vars(tree).values() if inspect.isclass(each) and issubclass(each, EtherError)}
    return sorted(found, key=lambda each: each.__name__)


def texts_of(error: type[EtherError]) -> Iterator[str]:
    """The texts that its class makes: what changes from case to case is `…`."""
    (parsed,) = ast.parse(textwrap.dedent(inspect.getsource(error))).body
    assert isinstance(parsed, ast.ClassDef)
    for method in parsed.body:
        if isinstance(method, ast.FunctionDef) and method.name in ("__str__", "__init__"):
            for node in ast.walk(method):
                if (text := _text_in(node)) is not None and len(re.findall(r"[a-z]{2,}", text)) > 1:
                    yield text


def _text_in(node: ast.AST) -> str | None:
    made: ast.expr | None = None
    if isinstance(node, ast.Return):
        made = node.value
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "__init__" and node.args:
        made = node.args[-1]
    if not isinstance(made, ast.JoinedStr):
        return None
    pieces = (str(piece.value) if isinstance(piece, ast.Constant) else "…" for piece in made.values)
    return re.sub("…+", "…", " ".join("".join(pieces).split()))


def rows() -> list[str]:
    """A row for each text, in the order of its first words; classes without one come last."""
    found = [(text, error) for error in errors() for text in dict.fromkeys(texts_of(error)) or ("",)]
    found.sort(key=lambda each: (not each[0], each[0].lstrip("… :").casefold(), each[1].__name__))
    return [_row(text, error) for text, error in found]


def _row(text: str, error: type[EtherError]) -> str:
    kinds = [
        base.__name__ for base in error.__mro__[1:] if base.__module__ == "builtins" and issubclass(base, Exception)
    ]
    builtin = kinds[0] if kinds and kinds[0] != "Exception" else ""
    article = "an" if builtin[:1] in ("A", "E", "I", "O") else "a"
    name = f"`{error.__name__}`" + (f", {article} `{builtin}`" if builtin else "")
    page = SPECIAL.get(error.__name__) or PAGES.get(error.__module__.rpartition(".")[2])
    link = f" ([{page.removesuffix('.md')}]({page}))" if page else ""
    return f"| {_cell(text) if text else ''} | {name} | {_cell(_first_sentence(error))}{link} |"


def _first_sentence(error: type[EtherError]) -> str:
    said = " ".join((inspect.getdoc(error) or "").split())
    return re.split(r"(?<=[.;])\s", said, maxsplit=1)[0].rstrip(";.") + "."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def write() -> None:
    """Put the rows into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    lines = "".join(f"{row}\n" for row in rows())
    PAGE.write_text(f"{before}{BEGIN}{HEAD}{lines}{END}{rest.partition(END)[2]}")


if __name__ == "__main__" and "--write" in sys.argv:
    write()
