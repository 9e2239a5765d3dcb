"""Members of a step: delay, window, retry, human gate and the others.

Source: sequence language contract §4, §5.5, §5.6, §13. Every model is frozen, ignores members it does not know, and has
the wire's member names. `always_written` and `omitted_defaults` say how a model is written back (`to_document`).
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr, model_validator

from sequences.durations import Duration

Int32 = Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)]
Natural = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Integer = Annotated[int, Field(strict=True)]


def _plain_number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("expected a number")  # noqa: TRY004 - pydantic reports ValueError
    return value


Number = Annotated[float, BeforeValidator(_plain_number), Field(allow_inf_nan=False)]


class Model(BaseModel):
    """Base of all parts of a document: frozen, unknown members ignored, defaults taken as they are."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, arbitrary_types_allowed=False)

    always_written: ClassVar[frozenset[str]] = frozenset()
    """Members written back as null when they are unset."""
    omitted_defaults: ClassVar[frozenset[str]] = frozenset()
    """Members left out while they have their default."""


class Delay(Model):
    """Wait before a step starts (§13.2)."""

    duration: Duration
    business_days_only: StrictBool = False
    jitter: Duration | None = None
    holidays: tuple[StrictStr, ...] = ()
    fire_at_local: StrictStr | None = None
    timezone: StrictStr | None = None
    count: Literal["calendar", "business"] | None = None

    omitted_defaults = frozenset({"holidays"})


class SendWindow(Model):
    """Hours and days in which a step may start (§13.1); day 0 is Monday, no days means every day."""

    start_hour: Integer = 9
    end_hour: Integer = 17
    days: tuple[Integer, ...] = ()


class RateLimit(Model):
    """Inline limit of a step: at most `max` starts in `window_seconds` (§13.4)."""

    max: Integer
    window_seconds: Integer


class Retry(Model):
    """When and how often a failed attempt is repeated (§5.6). `max_attempts` is the total number of executions."""

    max_attempts: Integer
    initial_backoff: Duration
    max_backoff: Duration
    backoff_multiplier: Number = 2.0
    retry_if: StrictStr | None = None
    non_retryable_codes: tuple[StrictStr, ...] | None = None
    retryable_errors: tuple[StrictStr, ...] | None = None
    jitter: Duration | None = None

    @model_validator(mode="before")
    @classmethod
    def _spell_out_backoff(cls, data: Any) -> Any:
        """`backoff` is short for equal first and largest waits (§16)."""
        if not isinstance(data, dict) or data.get("backoff") is None:
            return data
        return {"initial_backoff": data["backoff"], "max_backoff": data["backoff"], **data}


class HandlerCall(Model):
    """A handler and its parameters, called beside the flow: `on_deadline_breach` (§5.8)."""

    handler: StrictStr
    params: Any = None

    always_written = frozenset({"params"})


class Choice(Model):
    """One answer a human can give."""

    label: StrictStr
    value: StrictStr


DEFAULT_CHOICES = (Choice(label="Yes", value="yes"), Choice(label="No", value="no"))


class WaitForInput(Model):
    """Human gate: the step waits for one of the choices (§5.5)."""

    prompt: StrictStr = ""
    timeout: Duration | None = None
    escalation_handler: StrictStr | None = None
    choices: tuple[Choice, ...] | None = None
    store_as: StrictStr | None = None
    allow_comment: StrictBool = False

    omitted_defaults = frozenset({"allow_comment"})

    @property
    def effective_choices(self) -> tuple[Choice, ...]:
        """Return the choices given, or Yes and No."""
        return DEFAULT_CHOICES if self.choices is None else self.choices


class WaitForSignal(Model):
    """Open gate: after the handler the step waits for any payload (§5.5)."""

    name: StrictStr | None = None
    prompt: StrictStr = ""
    timeout: Duration | None = None
    escalation_handler: StrictStr | None = None

    @property
    def is_plain(self) -> bool:
        """Tell whether the gate says no more than `true`."""
        return self == WaitForSignal()


class VisibleFields(Model):
    """Top-level keys of a section that a step may see."""

    fields: tuple[StrictStr, ...]


Access = StrictBool | Literal["all", "none"] | VisibleFields


class ContextAccess(Model):
    """Which sections of the context a step's handler may see (§8.2)."""

    data: Access = True
    config: Access = True
    audit: Access = False
    runtime: Access = False


class Compensation(Model):
    """Stored form of a step's own compensation; inert (api.md §5.3)."""

    handler: StrictStr
    params: Any = None
    depends_on: tuple[StrictStr, ...] = ()
    verification: Literal["handler_result", "provider_receipt", "manual"] = "handler_result"

    always_written = frozenset({"params"})
