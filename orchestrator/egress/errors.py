"""Why a request was not sent, or has no answer."""

from typing import Final

from orchestrator.step_errors import PermanentError

BLOCKED: Final = "blocked: URL targets a private/internal network address"


class BlockedError(PermanentError):
    """The request would leave the public internet."""

    def __init__(self) -> None:
        super().__init__(BLOCKED)


class RedirectRejectedError(PermanentError):
    """The answer leads on to where this request may not go, or too far."""


class TooLargeError(PermanentError):
    """The answer is longer than the caller reads."""


class UnreachableError(ConnectionError):
    """The other side did not answer, or not in HTTP. Another attempt may work."""


class UnresolvedError(UnreachableError):
    """The name of the host leads to no address."""


class UntrustedError(UnreachableError):
    """The other side could not prove who it is."""
