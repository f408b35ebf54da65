"""All errors of the project, and what the service does about each.

AnonymizerError
├── ConfigurationError     a setting is wrong: refuse to start
├── StateUnavailable       the service's own disk cannot be used now: retry
├── WorkersUnavailable     no worker process can be given work now: retry
├── JournalDamaged         the disk no longer holds what was written: stop
├── PrivacyViolation       a finished batch breaks its promise: release nothing
├── SourceError
│   ├── SourceUnavailable  the source cannot answer now: ask again for the same windows
│   │   └── SourceDenied   until an operator fixes a token or a name: stop a one-shot run
│   └── SourceRefused      what the source holds cannot be anonymized as configured: stop
└── OutputError
    ├── OutputUnavailable  the destination cannot take it now: keep it, offer it later
    │   └── OutputDenied   until an operator fixes a token or a name: stop a one-shot run
    ├── IntentChanged      the batch must be written differently from what was recorded: record that, write again
    └── BatchRejected      the destination will never take it: set it, or the rows it names, aside, go on

The type tells the service what to do. The message is for people: what was asked, what was got, and what to do.
Exceptions of client libraries are translated where the library is called; nothing above an input or output sees one.
"""

from __future__ import annotations

from collections.abc import Sequence


class AnonymizerError(Exception):
    """Base of every error the project raises deliberately."""


class ConfigurationError(AnonymizerError):
    """One or more settings are wrong. Carries every problem, so that all can be fixed at once."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(self.problems))


class StateUnavailable(AnonymizerError):
    """The service's state cannot be written or read now, such as on a full disk; a retry may succeed."""


class WorkersUnavailable(AnonymizerError):
    """Worker processes cannot be reached, or there are none; a retry may succeed."""


class JournalDamaged(AnonymizerError):
    """The service's state is missing, damaged, too old, or another data set's. The message says what an operator can do."""


class PrivacyViolation(AnonymizerError):
    """A finished batch breaks its own promise and must not be released."""


class SourceError(AnonymizerError):
    """Samples could not be read."""


class SourceUnavailable(SourceError):
    """The source cannot answer now; a retry may succeed."""


class SourceDenied(SourceUnavailable):
    """The source refuses the service: a token, an organization or a bucket is wrong. Only an operator can fix it.

    Args:
        message: What was asked and what came back.
        was_reached: Whether the source itself refused; otherwise it cannot be reached, such as with an expired certificate.
    """

    def __init__(self, message: str, *, was_reached: bool = True) -> None:
        super().__init__(message)
        self.was_reached = was_reached


class SourceRefused(SourceError):
    """The samples cannot be anonymized as configured, such as two series for one source and time."""


class OutputError(AnonymizerError):
    """A batch was not delivered."""


class OutputUnavailable(OutputError):
    """The destination cannot take the batch now.

    Args:
        message: What was asked and what came back.
        retry_after_s: The wait that the destination asked for, in seconds, if any.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OutputDenied(OutputUnavailable):
    """The destination refuses the service: a token, organization, bucket or address is wrong. Only an operator can fix it."""


class IntentChanged(OutputError):
    """The intent recorded before this write no longer holds: ask for it again, record it, and write at once."""


class BatchRejected(OutputError):
    """The destination will never take this batch, or some rows of it; the other rows are stored.

    Args:
        message: What was asked and what came back.
        rows: The rows that were refused, as indices into the batch, ascending; None: nothing of it was stored.
    """

    def __init__(self, message: str, *, rows: Sequence[int] | None = None) -> None:
        super().__init__(message)
        self.rows = None if rows is None else tuple(rows)
