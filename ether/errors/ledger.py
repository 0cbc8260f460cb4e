"""Errors of the ledger, the folder in which results are recorded; the whole tree is drawn in `ether.errors`."""

from __future__ import annotations

from ether.errors.base import EtherError


class LedgerError(EtherError, OSError):
    """A fault of a ledger; `folder` is its path."""

    def __init__(self, folder: object, sentence: str) -> None:
        self.folder = str(folder)
        Exception.__init__(self, sentence)

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickled, (type(self), self.args, self.__dict__.copy())


def _unpickled(kind: type[LedgerError], args: tuple[object, ...], attributes: dict[str, object]) -> LedgerError:
    """The error with the same sentence and attributes; its constructor, which takes other arguments, is not called."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class LedgerFull(LedgerError):
    """The disk is full. Earlier records are intact, and appending works again when there is space."""

    def __init__(self, folder: object, free_bytes: int) -> None:
        self.free_bytes = free_bytes
        super().__init__(
            folder,
            f"the disk of the ledger {folder} is full ({free_bytes:,} bytes free): nothing was saved now, nothing saved"
            " before is hurt. Make room, and saving goes on.",
        )


class LedgerFailed(LedgerError):
    """The ledger cannot be written or read; `why` says what failed."""

    def __init__(self, folder: object, why: str) -> None:
        self.why = why
        super().__init__(folder, f"the ledger {folder} cannot be used: {why}")


class LedgerLocked(LedgerError):
    """Another program writes to the ledger; `holder` describes that program, as far as it is known."""

    def __init__(self, folder: object, holder: str) -> None:
        self.holder = holder
        super().__init__(
            folder,
            f"the ledger {folder} is being written by {holder}. One program writes to a ledger at a time: stop"
            " that one, or save to another folder.",
        )


class LedgerDamaged(LedgerError):
    """The content differs from what was written; `where` is the file or row, `why` says how it differs."""

    def __init__(self, folder: object, where: str, why: str) -> None:
        self.where, self.why = where, why
        super().__init__(folder, f"the ledger {folder} is damaged at {where}: {why}. Run `ether verify` for all of it.")


class SchemaTooNew(LedgerError):
    """A newer version of Ether wrote the ledger. `found` is its schema version, `known` the newest that this one
    reads."""

    def __init__(self, folder: object, found: int, known: int) -> None:
        self.found, self.known = found, known
        super().__init__(
            folder,
            f"the ledger {folder} has schema version {found}, and this Ether knows versions up to {known}."
            " Use the version of Ether that has written it, or a later one.",
        )
