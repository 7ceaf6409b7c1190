"""What drafters without memory share: nothing to prepare, nothing to keep."""

from typing import Any

import jax

from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.drafters.one_width import OneWidth


class Stateless(OneWidth):
    """Base of drafters that propose from the context alone."""

    def prepare(self, language_model: Any) -> tuple[()]:
        return ()

    def init(self, params: Any, context: Context) -> tuple[()]:
        return ()

    def admit(self, params: Any, state: tuple[()], context: Context, fresh: jax.Array) -> tuple[()]:
        return ()

    def observe(self, params: Any, state: tuple[()], context: Context, draft: Draft, verdict: Verdict) -> tuple[()]:
        return ()
