"""What can be refused, in words. Errors know no HTTP: `api/problems.py` maps each class to a status.

`detail` is read by people outside and says what to mend. It never holds personal data.
"""

from __future__ import annotations


class ShouwangError(Exception):
    """The base of every refusal. `code` is the stable last part of the problem's `type`."""

    code = "error"
    title = "The request was refused"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class NotFound(ShouwangError):
    code = "not-found"
    title = "There is no such thing here"


class InvalidInput(ShouwangError):
    code = "invalid-input"
    title = "The request does not fit"


class Conflict(ShouwangError):
    code = "conflict"
    title = "The request conflicts with what is there"


class IllegalTransition(ShouwangError):
    code = "illegal-transition"
    title = "The alarm cannot go there from where it is"


class VersionMismatch(ShouwangError):
    code = "version-mismatch"
    title = "Somebody changed it in between"


class NotLoggedIn(ShouwangError):
    code = "not-logged-in"
    title = "A valid bearer token is needed"


class NotAllowed(ShouwangError):
    code = "not-allowed"
    title = "The account has no right to this"


class TooManyRequests(ShouwangError):
    code = "too-many-requests"
    title = "Too many attempts"

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class IdempotencyMismatch(ShouwangError):
    code = "idempotency-mismatch"
    title = "The same Idempotency-Key came with another request"


class ChannelNotConfigured(ShouwangError):
    code = "channel-not-configured"
    title = "This server cannot send on that channel"


class LinkExpired(ShouwangError):
    code = "link-expired"
    title = "The link is no longer valid"


class Unavailable(ShouwangError):
    code = "unavailable"
    title = "Something the server depends on does not answer"
