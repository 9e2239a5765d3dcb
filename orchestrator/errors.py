"""Every error the engine raises on purpose.

OrchestratorError
├── RequestError            the caller's fault; nothing was changed
│   ├── InvalidArgument     correct the request
│   ├── Unprocessable       the data does not fit a schema
│   ├── NotFound            no such thing in this tenant
│   │   └── SequenceGone    the sequence has been deleted meanwhile
│   ├── AlreadyExists       the name or id is taken
│   ├── Conflict            the thing is in another state than the request needs; re-read it
│   ├── Forbidden           the caller's tenant or key does not allow it
│   ├── Unauthorized        the secret or signature is not right; answered without a word about why
│   ├── RateLimitExceeded   come again later
│   ├── PayloadTooLarge     send less
│   └── UpstreamFailed      the server that the request was to reach for the caller has failed
├── LostClaim               the claim has ended; drop the result
├── StoreUnavailable        PostgreSQL did not answer; try again
├── ServerError             raised by `orchestrator.client`: the server could not do what it was asked
│   ├── ServerUnavailable   it cannot be reached or is busy; try again
│   ├── ServerFault         it has failed; the message names the request id to look for in its log
│   └── NotAuthorized       it does not know the key; check it
├── WaitTimedOut            raised by `orchestrator.client`: the instance goes on, the waiting has ended
└── ConfigurationError      a setting or the installation is wrong; the message says which and what to do
"""

from uuid import UUID


class OrchestratorError(Exception):
    """Root of all errors raised on purpose."""


class RequestError(OrchestratorError):
    """The caller asked for something that cannot be done; nothing was changed."""


class InvalidArgument(RequestError):
    """The request is well-formed but means nothing valid."""


class Unprocessable(RequestError):
    """Data does not fit the schema it must fit."""


class NotFound(RequestError):
    """The named thing does not exist in the caller's tenant."""


class SequenceGone(NotFound):
    """A sequence that an instance needs from here on has been deleted. What was found out about it before is void.

    Args:
        sequence_id: Which.
    """

    def __init__(self, sequence_id: UUID) -> None:
        super().__init__(f"sequence {sequence_id}")
        self.sequence_id = sequence_id


class AlreadyExists(RequestError):
    """The id or the name and version are taken."""


class Conflict(RequestError):
    """The thing's present state does not allow the request."""


class Forbidden(RequestError):
    """The caller's tenant or capabilities do not allow the request."""


class Unauthorized(RequestError):
    """Whoever asks has not shown that he knows the secret of the thing. Says nothing about what was wrong."""


class RateLimitExceeded(RequestError):
    """The caller has come too often. Trying again later is right."""


class PayloadTooLarge(RequestError):
    """The payload is over a documented limit."""


class UpstreamFailed(RequestError):
    """A server of somebody else, which the request was to reach, did not take what it was sent."""


class StoreUnavailable(OrchestratorError):
    """PostgreSQL did not answer in time. Trying again later is right."""


class ServerError(OrchestratorError):
    """The server did not do what it was asked, and not because of what was asked."""


class ServerUnavailable(ServerError):
    """The server cannot be reached, or cannot answer now. Trying again later is right.

    Args:
        may_be_done: Whether the request may have been carried out although its answer was lost.
    """

    def __init__(self, message: str, *, may_be_done: bool = False) -> None:
        super().__init__(message)
        self.may_be_done = may_be_done


class ServerFault(ServerError):
    """The server has failed, or is none of ours."""


class NotAuthorized(ServerError):
    """The server does not know the key."""


class WaitTimedOut(OrchestratorError):
    """The time given for waiting is over; the instance goes on."""


class ConfigurationError(OrchestratorError):
    """A setting or the installation is wrong."""
