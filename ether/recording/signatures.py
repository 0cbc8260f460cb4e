"""Who has signed: batches by the device of their source, receipts by the device of their recorder.

A recorder says in its description which labs it knows, and its own name in each (`RecorderAbout.devices`). A source
that is a member of one of them signs what it sends there, and believes only receipts that are signed by that device. A
recorder takes no batch with a wrong signature; and from an outbox whose batches were signed none that is not, or is
signed by another device: else a forged batch that claims "everything before was acknowledged" would put a gap where
values come later. Outboxes of machines that are in no lab, and of programs of before, are unsigned as ever.

Promise: what costs (`cryptography`, 40 ms) is loaded where there is a lab to sign for, and not before. The trap: an
outbox that is carried to another device is refused until that device is paired under the name of the first one; what is
in it stays there.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ether.errors import DecodeError
from ether.log import get_ether_logger
from ether.recording.receipt_rules import RecorderAbout
from ether.system.lab_folders import Membership, memberships
from ether.wire.entries import Batch, BatchSignature, Sign
from ether.wire.json_text import dumps

if TYPE_CHECKING:
    from ether.security.signing import Signer, Verifier

logger = get_ether_logger("Ether")

_RECEIPT_WORDS = b"ether receipt 1\x00"
_MOST_SAID = 100


class OwnMemberships:
    """This machine's memberships, with what signs and verifies in each lab. For one thread."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._known = {known.lab: known for known in memberships(os.environ if environment is None else environment)}
        self._signers: dict[str, Signer | None] = {}

    @property
    def devices(self) -> tuple[tuple[str, str], ...]:
        """Each lab with this machine's name there."""
        return tuple((known.lab, known.name) for known in self._known.values())

    def signer(self, lab: str) -> Signer | None:
        """What signs for a lab; None where this machine is no member, or cannot read its own key."""
        if lab not in self._signers:
            known = self._known.get(lab)
            self._signers[lab] = None if known is None else _signer(known)
        return self._signers[lab]

    def is_usable(self, lab: str) -> bool:
        """Whether this machine can sign and verify in a lab."""
        return self.signer(lab) is not None and lab in self.verifiers

    @cached_property
    def verifiers(self) -> dict[str, Verifier]:
        """What verifies, by lab."""
        from ether.security.signing import verifiers  # late: it takes 40 ms to load

        found = {}
        for known in self._known.values():
            try:
                with open(known.authority, "rb") as file:
                    found[known.lab] = file.read()
            except OSError as error:
                logger.warning("the lab's certificate %s cannot be read: %s", known.authority, error)
        return verifiers(found)


def _signer(known: Membership) -> Signer | None:
    from ether.security.certificates import NotSigned  # late, as above
    from ether.security.signing import Signer

    try:
        with open(known.certificate, "rb") as certificate, open(known.key, "rb") as key:
            return Signer.from_pem(known.lab, known.name, certificate.read(), key.read())
    except (OSError, NotSigned) as error:
        logger.error("what is saved is not signed: %s cannot be used: %s", known.folder, error)
        return None


class SourceSignatures:
    """A source's side: signs batches, verifies receipts. For the sender's thread."""

    def __init__(self) -> None:
        self._own = OwnMemberships()
        self._refused: set[tuple[str, str]] = set()
        self._made_up = 0
        self._pinned: dict[tuple[str, str], bytes] = {}
        """By recorder and lab the key of the first receipt that was believed. Within a lab no other one is, whatever is
        announced later: who can announce a recorder under a name that is taken has not its key."""
        self._believed: dict[str, RecorderAbout] = {}
        """By recorder its description when a signed receipt was believed last. A receipt that fits it is believed
        whatever is announced now, also where nothing is any more: emptying a description, or forging one, neither makes
        an unsigned receipt good nor a signed one bad."""
        self.conflicts: dict[str, str] = {}
        """By recorder: it goes on with another key, or with none."""

    def _for(self, about: RecorderAbout) -> Signer | None:
        return next((signer for lab, _ in about.devices if (signer := self._own.signer(lab)) is not None), None)

    def sign(self, about: RecorderAbout) -> Sign | None:
        """What signs for this recorder; None where nothing does."""
        signer = self._for(about)
        return None if signer is None else (signer.certificate, signer.sign)

    def is_genuine(self, about: RecorderAbout | None, receipt: Mapping[str, Any]) -> bool:
        """Whether a receipt is by the device of this recorder; True for one that has nothing to sign with, and never
        had."""
        name = str(receipt.get("recorder")) if about is None else about.name
        believed = self._believed.get(name)
        if about is None and believed is None:
            return True
        problem = "" if believed is None else self._problem(believed, receipt)
        if about is not None and (problem or believed is None):
            problem = self._problem(about, receipt)
        if problem:
            self._tell(name, problem)
        else:
            self.conflicts.pop(name, None)
        return not problem

    def _tell(self, name: str, problem: str) -> None:
        """Each reason once. Of those that can be made up without end so many are told; a conflict takes a recorder
        that was believed, and a member's signature or none, so nothing that is made up uses up its line."""
        said = name, problem
        if said in self._refused:
            return
        if self.conflicts.get(name) != problem:
            if self._made_up >= _MOST_SAID:
                return
            self._made_up += 1
        self._refused.add(said)
        logger.warning("a receipt in the name of %s is not believed: %s", name, problem)

    def _problem(self, about: RecorderAbout, receipt: Mapping[str, Any]) -> str:
        signer = self._for(about)
        if signer is None:
            return self._conflict(about.name, "with none") if about.name in self._believed else ""
        verifier, device = self._own.verifiers.get(signer.lab), dict(about.devices)[signer.lab]
        if verifier is None:
            return "this machine's certificate of the lab cannot be read"
        by, problem = _signed_receipt(verifier, device, receipt)
        if problem:
            return problem
        key = verifier.key_of(by)
        if self._pinned.setdefault((about.name, signer.lab), key) != key:
            return self._conflict(about.name, f"with another one, of {device!r}")
        self._believed[about.name] = about
        return ""

    def _conflict(self, name: str, how: str) -> str:
        """Two recorders of one name: named, and only the first one is believed."""
        self.conflicts[name] = why = (
            f"recorder {name!r} has signed receipts with one key, and now signs {how}: there are two of this name, or"
            " it was moved. Nothing is forgotten that the first one has not; after a move, restart this instance"
        )
        return why


def _signed_receipt(verifier: Verifier, device: str, receipt: Mapping[str, Any]) -> tuple[bytes, str]:
    """The certificate of who has signed a receipt, and why it is not believed, "" where it is."""
    from ether.security.certificates import NotSigned  # late, as above

    try:
        certificate, signature = (b64decode(receipt[key], validate=True) for key in ("by", "signature"))
        by = verifier.device(certificate, _receipt_message(receipt), signature)
    except (KeyError, TypeError, ValueError) as error:  # NotSigned is a ValueError
        return b"", str(error) if isinstance(error, NotSigned) else "nobody has signed it"
    return certificate, "" if by == device else f"it is signed by {by!r}, not by {device!r}"


def _receipt_message(receipt: Mapping[str, Any]) -> bytes:
    said = [receipt.get(key) for key in ("outbox", "recorder", "birth", "upto", "problem", "link")]
    return _RECEIPT_WORDS + dumps(said)


class RecorderSignatures:
    """A recorder's side: verifies batches, signs receipts. For the recorder's thread."""

    def __init__(self, kept: Mapping[str, bytes]) -> None:
        """`kept`: by outbox who has signed before, as the ledger has it."""
        self._own = OwnMemberships()
        said = {outbox: signed_by(each) for outbox, each in kept.items()}
        # Of a lab that this machine has left, or that was made anew, nothing can be verified; and its devices would
        # wait for ever.
        self._bound = {outbox: by for outbox, by in said.items() if by is not None and self._own.is_usable(by[0])}
        self._signers: dict[tuple[str, bytes], bytes] = {}

    @property
    def devices(self) -> tuple[tuple[str, str], ...]:
        """As in `RecorderAbout`. A source signs for the first lab of these that it is in, and has to go on with the lab
        of before: so those that have signed most come first, and no file's time decides. One for which this machine
        cannot sign or verify is left out: its sources would wait for receipts in vain."""
        used = Counter(lab for lab, _ in self._bound.values())
        usable = [known for known in self._own.devices if self._own.is_usable(known[0])]
        return tuple(sorted(usable, key=lambda known: (-used[known[0]], known[0])))

    def checked(self, batch: Batch, source: str | None = None) -> Batch:
        """The batch as the ledger keeps it. `source`: whose outbox it is in the ledger, None where it knows none.
        Raises `DecodeError` where the batch is not by the device that it should be by."""
        if source not in (None, batch.source):
            raise DecodeError(f"a batch that {batch.source!r} sends in the name of the outbox of {source!r} is refused")
        bound, signed = self._bound.get(batch.outbox), batch.signature
        if signed is None:
            if bound is not None:
                raise DecodeError(
                    f"a batch of {batch.source!r} that nobody has signed is refused: {bound[1]!r} has signed earlier"
                    " ones of this outbox"
                )
            return batch
        lab, device = self._device(batch, signed)
        if bound is not None and bound != (lab, device):
            raise DecodeError(
                f"a batch of {batch.source!r} that {device!r} has signed is refused: this outbox is that of"
                f" {bound[1]!r}. If it was carried there, type `ether pair {bound[1]}` for that machine"
            )
        self._bound[batch.outbox] = lab, device
        return batch._replace(signature=signed._replace(signer=self._about(lab, device, signed.signer)))

    def _device(self, batch: Batch, signed: BatchSignature) -> tuple[str, str]:
        from ether.security.certificates import NotSigned  # late, as above

        why, message = "this machine is in no lab", signed.message()
        for verifier in self._own.verifiers.values():
            try:
                return verifier.lab, verifier.device(signed.signer, message, signed.signature)
            except NotSigned as error:
                why = str(error)
        raise DecodeError(f"a batch of {batch.source!r} is refused: {why}")

    def _about(self, lab: str, device: str, certificate: bytes) -> bytes:
        """What says who has signed, with all that is needed to verify it elsewhere."""
        if (lab, certificate) not in self._signers:
            said = {"lab": lab, "device": device, "certificate": _text(certificate),
                    "authority": self._own.verifiers[lab].authority.decode()}  # fmt: skip
            self._signers[lab, certificate] = json.dumps(said, sort_keys=True).encode()
        return self._signers[lab, certificate]

    def sign_receipt(self, receipt: dict[str, Any], link: str) -> None:
        """Sign a receipt, and say what the ledger ends with, where the batches of this outbox are signed."""
        bound = self._bound.get(receipt["outbox"])
        signer = None if bound is None else self._own.signer(bound[0])
        if signer is not None:
            receipt["link"] = link
            signature = signer.sign(_receipt_message(receipt))
            receipt |= {"by": _text(signer.certificate), "signature": _text(signature)}


def signed_by(kept: bytes) -> tuple[str, str] | None:
    """Lab and device of what a ledger keeps of who has signed; None for anything else."""
    try:
        said = json.loads(kept)
    except (ValueError, RecursionError):
        return None
    match said:
        case {"lab": str(lab), "device": str(device)}:
            return lab, device
    return None


def _text(content: bytes) -> str:
    return b64encode(content).decode()
