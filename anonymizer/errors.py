"""Everything that can go wrong, and what we do then.

AnonymizerError
├── ConfigurationError     a setting is wrong: refuse to start
├── StateUnavailable       the disk cannot take what we must remember now: try again
├── JournalDamaged         the disk no longer says what we wrote: stop
├── PrivacyViolation       a finished batch breaks its promise: release nothing
├── SourceError
│   ├── SourceUnavailable  the source cannot answer now: ask again for the same windows
│   │   └── SourceDenied   nor ever, unless an operator fixes a token or a name: stop a one-shot run
│   └── SourceRefused      what the source holds cannot be anonymized as configured: stop
└── OutputError
    ├── OutputUnavailable  the destination cannot take it now: keep it, offer it later
    │   └── OutputDenied   nor ever, unless an operator fixes a token or a name: stop a one-shot run
    ├── IntentChanged      the batch is to be written in another way than was put on record: record that, write again
    └── BatchRejected      the destination never will: set it, or the rows it names, aside, go on

The type is the instruction. Nobody reads the message but people, so it says what was asked, what was got and what to do.
Exceptions of client libraries stop where the library is called; nothing above an input or output sees one.
"""

from __future__ import annotations

from collections.abc import Sequence


class AnonymizerError(Exception):
    """Anything this project raises on purpose."""


class ConfigurationError(AnonymizerError):
    """One or more settings are wrong. Carries every problem, so that all can be fixed at once."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(self.problems))


class StateUnavailable(AnonymizerError):
    """What the service must remember cannot be written or read now, such as on a full disk; the same may be tried again."""


class JournalDamaged(AnonymizerError):
    """What the service must remember is gone, damaged, too old, or another data set's. The message says what a person can do."""


class PrivacyViolation(AnonymizerError):
    """A finished batch does not keep the promise it states. It must not leave."""


class SourceError(AnonymizerError):
    """Samples could not be read."""


class SourceUnavailable(SourceError):
    """The source cannot answer now; the same question may be asked again."""


class SourceDenied(SourceUnavailable):
    """The source refuses us: a token, an organization or a bucket is wrong. Only an operator can fix it.

    Args:
        message: What was asked and what came back.
        was_reached: Whether the source itself said so; else there is no way to it, such as with a certificate that has expired.
    """

    def __init__(self, message: str, *, was_reached: bool = True) -> None:
        super().__init__(message)
        self.was_reached = was_reached


class SourceRefused(SourceError):
    """The samples are of a form that cannot be anonymized as configured, such as two series for one source and time."""


class OutputError(AnonymizerError):
    """A batch was not delivered."""


class OutputUnavailable(OutputError):
    """The destination cannot take the batch now.

    Args:
        message: What was asked and what came back.
        retry_after_s: How long the destination asked us to wait, in seconds, if it did.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OutputDenied(OutputUnavailable):
    """The destination refuses us: a token, an organization, a bucket or an address is wrong. Only an operator can fix it."""


class IntentChanged(OutputError):
    """What was put on record before this write no longer holds: ask for the intent again, record it, and write at once."""


class BatchRejected(OutputError):
    """The destination will never take this batch, or never some rows of it; the others it has stored.

    Args:
        message: What was asked and what came back.
        rows: The rows that were refused, as indices into the batch, ascending; None: nothing of it was stored.
    """

    def __init__(self, message: str, *, rows: Sequence[int] | None = None) -> None:
        super().__init__(message)
        self.rows = None if rows is None else tuple(rows)
