"""A crate, judged by the validator of the RO-Crate community, without a network.

The validator fetches JSON-LD contexts. Here they are given to it: that of RO-Crate as the `rocrate` library ships it,
and of the terms for runs the one that is used.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from git_bench import PARTS, ask_context
from lineage_lab import Writer, write_pipeline
from patience import patience

from ether.ledger.reader import LedgerReader
from ether.provenance.context import configuration_facts
from ether.reading.export import crate as export_crate

needs_validator = pytest.mark.skipif(
    not (importlib.util.find_spec("rocrate_validator") and importlib.util.find_spec("rocrate")),
    reason="the validator of RO-Crates is not installed: pip install -e '.[ci]'",
)

_JUDGE = """
import importlib.util, json, sys
from pathlib import Path
import requests
from rocrate_validator import models, services
from rocrate_validator.utils import http

library = Path(importlib.util.find_spec("rocrate").origin).parent
known = {
    "https://w3id.org/ro/crate/1.1/context": (library / "data" / "ro-crate.jsonld").read_bytes(),
    "https://w3id.org/ro/terms/workflow-run/context": json.dumps(
        {"@context": {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}}
    ).encode(),
}

def get(self, url, *rest, **options):
    answer = requests.Response()
    answer.url, answer.status_code = url, 200 if url in known else 404
    answer._content = known.get(url, b"")
    answer.headers["Content-Type"] = "application/ld+json"
    return answer

http.HttpRequester.get = get
settings = services.ValidationSettings(
    rocrate_uri=sys.argv[1], profile_identifier=sys.argv[2], requirement_severity=models.Severity.REQUIRED, offline=True
)
found = services.validate(settings)
issues = [f"{issue.check.identifier}: {issue.message}" for issue in found.get_issues(models.Severity.REQUIRED)]
print("\\n" + json.dumps({"passed": found.passed(models.Severity.REQUIRED), "issues": issues}))
"""


def judged(folder: Path, profile: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", _JUDGE, str(folder), profile],
        capture_output=True,
        text=True,
        timeout=patience(100),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(verdict, dict)
    return verdict


@needs_validator
@pytest.mark.parametrize("profile", ["ro-crate-1.1", "process-run-crate-0.5"])
def test_a_crate_keeps_every_requirement_of_its_profile(tmp_path: Path, profile: str) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    about = ask_context(tmp_path)
    facts = configuration_facts({"session": "bench"}, "session: bench\n", "ether.yaml")
    with Writer(tmp_path / "ledger") as writer:
        for made in facts.artifacts:
            writer.keep_artifact("main", made.sha256, made.name, made.content)
        write_pipeline(writer, {"doubler": writer.keep("doubler", about, configuration=facts.described)})
    with LedgerReader.open(tmp_path / "ledger") as reader:
        export_crate.write(reader, tmp_path / "crate", license_text="https://spdx.org/licenses/CC-BY-4.0")
    assert judged(tmp_path / "crate", profile) == {"passed": True, "issues": []}
    told = json.loads((tmp_path / "crate" / "ro-crate-metadata.json").read_text())
    for entity in told["@graph"]:
        entity.pop("instrument", None)
        entity.pop("datePublished", None)
    (tmp_path / "crate" / "ro-crate-metadata.json").write_text(json.dumps(told))
    assert judged(tmp_path / "crate", profile)["passed"] is False
