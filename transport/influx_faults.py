"""What goes wrong with an InfluxDB, as one exception; and what is known of a bucket."""

from __future__ import annotations

import re
from dataclasses import dataclass


class InfluxFault(Exception):
    """The server did not do what was asked.

    Args:
        message: What came back, in a sentence.
        status: HTTP status; None when there was no answer, or none that ended properly.
        retry_after_s: The wait that the server asked for.
        is_unreachable_for_good: Whether the server stays unreachable until an operator changes an address or a certificate.
        needs_setting: Whether the server answers, and cannot be used until a setting is changed that the message names.
        body: What the answer says, to be understood and never shown: it may quote rows.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        is_unreachable_for_good: bool = False,
        needs_setting: bool = False,
        body: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.is_unreachable_for_good = is_unreachable_for_good
        self.needs_setting = needs_setting
        self.body = body

    def reworded(self, message: str, *, status: int | None = None) -> InfluxFault:
        """Return the same fault in other words, and perhaps with another status."""
        return InfluxFault(
            message,
            status=self.status if status is None else status,
            retry_after_s=self.retry_after_s,
            is_unreachable_for_good=self.is_unreachable_for_good,
            needs_setting=self.needs_setting,
            body=self.body,
        )

    @property
    def is_denial(self) -> bool:
        """Whether a token, an organization, a bucket or the address is wrong, which waiting does not fix."""
        # Below 400: a redirect, or a success that is not InfluxDB's.
        is_refused = self.status is not None and (self.status < 400 or self.status in (401, 403, 404, 405, 407))
        return is_refused or self.is_unreachable_for_good or self.needs_setting

    @property
    def says_there_is_no_bucket(self) -> bool:
        """Whether the server reported this itself, as it does for every token; a token without access gets an empty list."""
        return self.status == 404 and ("bucket" in str(self) or "database" in str(self))

    @property
    def says_there_is_no_organization(self) -> bool:
        """Whether the server reported this. A missing database may have any name, also one with this word in it."""
        return self.status in (400, 404) and "organization" in str(self) and not self.says_there_is_no_bucket


@dataclass(frozen=True, slots=True)
class BucketFacts:
    """A bucket's properties, as the server reports them.

    Args:
        name: Its name.
        id: Stays the same whatever its name and address.
        shard_group_s: How long its shard groups are; 0 when that is not told.
        retention_s: How long it keeps rows; 0: for ever.
        is_told_apart_by_name: Whether `id` is made of names, so that another server may have the same.
    """

    name: str
    id: str
    shard_group_s: int
    retention_s: int
    is_told_apart_by_name: bool = False


def looks_like_id(text: str) -> bool:
    """Return whether a text has the form of the ids that a server gives to buckets and organizations."""
    return re.fullmatch("[0-9a-fA-F]{16}", text) is not None
