"""How the params of a step become the arguments of a handler.

The signature is read once, when the handler is registered; a call only runs the validators made then. Three shapes:

* one parameter annotated with a pydantic model gets the whole params, validated;
* a parameter named `params` gets the whole params, validated if it is annotated;
* all other parameters are taken from the params object by name, validated and coerced by their annotations.

A parameter named `ctx` or annotated `StepContext` gets the context in each of them.
"""

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pydantic
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from orchestrator.core.outcomes import Failed, FailureKind
from orchestrator.errors import ConfigurationError
from workers.context import StepContext
from workers.failures import describe_validation_error, failed

_NO_CONTEXT: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a handler; without an adapter it takes any value."""

    name: str
    adapter: pydantic.TypeAdapter[Any] | None
    is_required: bool

    def accept(self, value: Any) -> Any:
        """Return the validated value, or raise pydantic's `ValidationError`."""
        return value if self.adapter is None else self.adapter.validate_python(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The parameters of one handler, ready to take params.

    Args:
        context: Name of the parameter that gets the context; `""` if none does.
        whole: The parameter that gets all params at once, or None.
        is_model: Whether `whole` is a pydantic model whose fields are the params.
        named: Parameters taken by name.
        takes_unknown: Whether names that no parameter has are passed on as `**kwargs`.
    """

    context: str
    whole: Parameter | None
    is_model: bool
    named: tuple[Parameter, ...]
    takes_unknown: bool

    def arguments(self, ctx: StepContext | None, params: Any) -> dict[str, Any] | Failed:
        """Return the keyword arguments of the call, or the permanent failure that names each wrong parameter.

        Absent params (null) count as `{}`, except for an unannotated parameter `params`.
        """
        arguments: dict[str, Any] = {self.context: ctx} if self.context else {}
        problems: list[str] = []
        if self.whole is not None:
            _take(self.whole, self._whole_value(params), arguments, problems, root="" if self.is_model else "params")
        if self.named or self.whole is None:
            self._take_named({} if params is None else params, arguments, problems)
        return failed("; ".join(problems), retryable=False, kind=FailureKind.INPUT) if problems else arguments

    def _whole_value(self, params: Any) -> Any:
        is_typed = self.whole is not None and self.whole.adapter is not None
        return {} if params is None and is_typed else params

    def _take_named(self, params: Any, arguments: dict[str, Any], problems: list[str]) -> None:
        if not isinstance(params, dict):
            problems.append(f"params must be an object, not {_json_type(params)}")
            return
        for parameter in self.named:
            if parameter.name in params:
                _take(parameter, params[parameter.name], arguments, problems, root=parameter.name)
            elif parameter.is_required:
                problems.append(f"missing required param: {parameter.name}")
        unknown = [name for name in params if name not in {parameter.name for parameter in self.named}]
        if self.takes_unknown:
            self._take_unknown({name: params[name] for name in unknown}, arguments, problems)
        elif self.whole is None:
            problems.extend(f"unknown param: {name}" for name in unknown)

    def _take_unknown(self, extra: dict[str, Any], arguments: dict[str, Any], problems: list[str]) -> None:
        """Pass on `**kwargs`, but never over the context or the whole params."""
        taken = [name for name in extra if name in arguments]
        problems.extend(f"unknown param: {name}" for name in taken)
        arguments.update({name: value for name, value in extra.items() if name not in taken})


def _take(parameter: Parameter, value: Any, arguments: dict[str, Any], problems: list[str], *, root: str) -> None:
    try:
        arguments[parameter.name] = parameter.accept(value)
    except pydantic.ValidationError as exc:
        problems.append(describe_validation_error(exc, root))


def binding_of(name: str, function: Callable[..., Any]) -> Binding:
    """Read a handler's signature.

    Raises:
        ConfigurationError: An annotation cannot be resolved or validated, or a parameter cannot be passed by name.
    """
    parameters = _signature(name, function).parameters.values()
    if any(parameter.kind is inspect.Parameter.POSITIONAL_ONLY for parameter in parameters):
        raise ConfigurationError(f"handler {name!r}: positional-only parameters cannot be taken from params by name")
    context = next((parameter.name for parameter in parameters if _takes_context(parameter)), _NO_CONTEXT)
    usable = [parameter for parameter in parameters if parameter.name != context and not _is_variadic(parameter)]
    whole = _whole_parameter(usable)
    takes_unknown = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return Binding(
        context=context,
        whole=None if whole is None else _parameter(name, whole),
        is_model=whole is not None and _is_model(whole.annotation),
        named=tuple(_parameter(name, parameter) for parameter in usable if parameter is not whole),
        takes_unknown=takes_unknown,
    )


def _signature(name: str, function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except NameError as exc:
        raise ConfigurationError(
            f"handler {name!r}: annotation not resolvable at run time: {exc}; import it outside of TYPE_CHECKING"
        ) from exc
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"handler {name!r}: {function!r} has no readable signature: {exc}") from exc


def _parameter(handler: str, parameter: inspect.Parameter) -> Parameter:
    is_required = parameter.default is inspect.Parameter.empty
    return Parameter(name=parameter.name, adapter=_adapter(handler, parameter, is_required), is_required=is_required)


def _adapter(handler: str, parameter: inspect.Parameter, is_required: bool) -> pydantic.TypeAdapter[Any] | None:
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty or annotation is Any:
        return None
    try:
        return pydantic.TypeAdapter(annotation)
    except PydanticSchemaGenerationError as exc:
        if is_required:
            raise ConfigurationError(
                f"handler {handler!r}: parameter {parameter.name!r} has a type that JSON cannot give: {annotation!r}"
            ) from exc
        # A default such as a client object: keep the default usable, and let no JSON value take its place.
        return pydantic.TypeAdapter(annotation, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError as exc:
        raise ConfigurationError(f"handler {handler!r}: parameter {parameter.name!r}: {exc}") from exc


def _whole_parameter(usable: list[inspect.Parameter]) -> inspect.Parameter | None:
    """Return the parameter that gets all params: the only one, if it is a model, or the one named `params`."""
    if len(usable) == 1 and _is_model(usable[0].annotation):
        return usable[0]
    return next((parameter for parameter in usable if parameter.name == "params"), None)


def _is_model(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, pydantic.BaseModel)


def _is_variadic(parameter: inspect.Parameter) -> bool:
    return parameter.kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def _takes_context(parameter: inspect.Parameter) -> bool:
    if _is_variadic(parameter):
        return False
    return parameter.name == "ctx" or StepContext in _alternatives(parameter.annotation)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation itself."""
    is_union = typing.get_origin(annotation) in {typing.Union, types.UnionType}
    return typing.get_args(annotation) if is_union else (annotation,)


def _json_type(value: Any) -> str:
    return {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}.get(
        type(value), type(value).__name__
    )
