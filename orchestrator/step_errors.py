"""What handlers, and what they call, raise to fail an attempt.

StepError
├── RetryableError    try again if the step has a retry policy
└── PermanentError    trying again is pointless
"""

from collections.abc import Mapping
from typing import Any


class StepError(Exception):
    """Raise it in a handler to fail the attempt and to say whether another one makes sense.

    Args:
        message: What went wrong, for people.
        retryable: Whether the step's retry policy may try again.
        code: Stored as `details.code`; `retry.non_retryable_codes` and `retry.retryable_errors` compare it.
        details: Further JSON values stored with the failure.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool,
        code: str | int | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.code = code
        self.details = details

    def failure_details(self) -> dict[str, Any] | None:
        """Return the details with the code among them; None if there is neither."""
        code = {} if self.code is None else {"code": self.code}
        return {**code, **(self.details or {})} or None


class RetryableError(StepError):
    """Fail the attempt; the retry policy decides whether there is another."""

    def __init__(
        self, message: str, *, code: str | int | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, retryable=True, code=code, details=details)


class PermanentError(StepError):
    """Fail the step; no retry policy applies."""

    def __init__(
        self, message: str, *, code: str | int | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, retryable=False, code=code, details=details)
