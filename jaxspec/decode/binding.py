"""What a drafter may know of the job it is compiled into."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.sampling import SamplingFlags
from jaxspec.decode.types import Drafter


@dataclasses.dataclass(frozen=True)
class Binding:
    """The static facts of a job.

    Attributes:
      vocabulary: V of the target.
      flags: which sampling transforms the target's distribution goes through.
      drawing: how a drafter that can draw should, see `Acceptance`.
      prefill_width: prompt tokens a pass; `Context.tokens` is that much longer than the cache.
      alone: whether drafts reach the loop as the drafter made them. Within another drafter they are chosen from,
        and `log_q` is lost.
      by_request: whether drafts must depend on the request alone, because its text depends on them: not on other
        lanes or earlier requests, nor on what passes take. Drafters with several widths then keep to the widest.
    """

    vocabulary: int
    flags: SamplingFlags
    drawing: Drawing
    prefill_width: int
    alone: bool = True
    by_request: bool = False


@runtime_checkable
class Bindable(Protocol):
    """A drafter that wants to know its job."""

    def bind(self, binding: Binding) -> Drafter: ...


@runtime_checkable
class MadeOfTarget(Protocol):
    """A drafter that is not complete before it knows its target: a cheaper version of it, for one."""

    def of_target(self, language_model: Any) -> Drafter: ...


def bind(drafter: Any, binding: Binding) -> Any:
    """`drafter` bound to a job, and so is every drafter within it; one that does not ask stays as it is."""
    if isinstance(drafter, Bindable):
        return drafter.bind(binding)
    inner = dataclasses.replace(binding, alone=False)
    return _with_parts(drafter, lambda part: bind(part, inner))


def of_target(drafter: Any, language_model: Any) -> Any:
    """`drafter` completed from its target, and so is every drafter within it."""
    if isinstance(drafter, MadeOfTarget):
        return drafter.of_target(language_model)
    return _with_parts(drafter, lambda part: of_target(part, language_model))


def _with_parts(drafter: Any, change: Callable[[Any], Any]) -> Any:
    """`drafter` with the drafters within it changed; anything else as it is."""
    if isinstance(drafter, tuple):
        return tuple(change(part) for part in drafter)
    if not isinstance(drafter, Drafter) or not dataclasses.is_dataclass(drafter):
        return drafter
    fields = {field.name: getattr(drafter, field.name) for field in dataclasses.fields(drafter) if field.init}
    new = {name: change(value) for name, value in fields.items()}
    changed = {name: value for name, value in new.items() if value is not fields[name] and value != fields[name]}
    return dataclasses.replace(drafter, **changed) if changed else drafter
