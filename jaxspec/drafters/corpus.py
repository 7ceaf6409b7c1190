"""Drafts from everything said before: earlier requests, other lanes, and optionally a file.

B lanes, W width.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.binding import Binding
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.decode.whole_number import integer
from jaxspec.drafters.chain import OneChain, chain
from jaxspec.drafters.corpus_file import check_file, read_texts
from jaxspec.drafters.sizes import sizes
from jaxspec.drafters.suffix import match_class
from jaxspec.drafters.text_memory import BOUNDARY, LONGEST, Memory, append, empty_memory, lookup

SHORTEST_MEMORY = 16  # tokens a lane


@dataclasses.dataclass(frozen=True)
class Corpus(OneChain):
    """One chain of up to `width` tokens.

    Attributes:
      width: W.
      slots: tokens remembered, all lanes together, and buckets of the table.
      path: file of texts known from the start, or "".
    """

    width: int
    slots: int
    path: str

    sources = ("corpus",)

    def bind(self, binding: Binding) -> "Corpus":
        if binding.by_request:
            raise ValueError(
                "corpus drafts from other requests, and the acceptance rule lets a text depend on its draft; use "
                "acceptance='coupled', or suffix"
            )
        return self

    def prepare(self, language_model: Any) -> tuple[Memory, ...]:
        """The memory of the file, if there is one."""
        if not self.path:
            return ()
        texts = read_texts(Path(self.path), language_model)
        run = np.concatenate([np.array([BOUNDARY, *text], np.int32) for text in texts])
        buckets = 1 << max(len(run) - 1, 1).bit_length()
        empty = empty_memory(1, len(run), buckets)
        return (jax.jit(append)(empty, jnp.asarray(run[None]), jnp.full((1,), len(run), jnp.int32)),)

    def init(self, params: tuple[Memory, ...], context: Context) -> Memory:
        lanes = context.length.shape[0]
        if self.slots < SHORTEST_MEMORY * lanes:
            raise ValueError(
                f"slots={self.slots} is below {SHORTEST_MEMORY} for each of {lanes} lanes; raise it or use fewer lanes"
            )
        return empty_memory(lanes, self.slots // lanes, 1 << (self.slots - 1).bit_length())

    def admit(self, params: tuple[Memory, ...], state: Memory, context: Context, fresh: jax.Array) -> Memory:
        run = jnp.pad(context.tokens, ((0, 0), (1, 0)), constant_values=BOUNDARY)
        return append(state, run, jnp.where(fresh, context.length + 1, 0))

    def propose(self, params: tuple[Memory, ...], state: Memory, context: Context) -> tuple[Draft, Memory]:
        found = [
            jax.vmap(lookup, in_axes=(None, 0, 0, None))(memory, *_end(context), self.width)
            for memory in (state, *params)
        ]
        ids, matched, proposed = (jnp.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        best = jnp.argmax(matched, axis=1)[:, None]  # of equal matches what was said lately, then the longer query

        def pick(field: jax.Array) -> jax.Array:
            return jnp.take_along_axis(field, best, axis=1)[:, 0]

        ids = jnp.take_along_axis(ids, best[:, :, None], axis=1)[:, 0]
        return chain(ids, pick(proposed), match_class(pick(matched))), state

    def observe(
        self, params: tuple[Memory, ...], state: Memory, context: Context, draft: Draft, verdict: Verdict
    ) -> Memory:
        # What a limit or a stop rule cuts off is remembered too: it is what the model would have said.
        return append(state, verdict.ids, jnp.where(context.live, verdict.accepted + 1, 0))


def _end(context: Context) -> tuple[jax.Array, jax.Array]:
    """(B, LONGEST) int32 last tokens, the last first, and (B,) int32 how many of them there are."""
    index = context.length[:, None] - 1 - jnp.arange(LONGEST, dtype=jnp.int32)
    return jnp.take_along_axis(context.tokens, jnp.maximum(index, 0), axis=1), context.length


def corpus(width: int = 10, slots: int = 2**16, path: str = "") -> Corpus:
    """Drafts by copying from earlier requests, other lanes and a file.

    Args:
      width: most tokens proposed a step.
      slots: tokens remembered, all lanes together; each lane forgets its oldest.
      path: a UTF-8 text, or a `.jsonl` with a string or a list of token ids a line, known from the start.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a size is no integer, `width` is below 1 or `slots` below 16, or the file cannot be read as texts.
    """
    (width,) = sizes("corpus", width=width)
    slots = integer("slots", slots)
    if slots < SHORTEST_MEMORY:
        raise ValueError(f"slots={slots} is below {SHORTEST_MEMORY}; there would be nothing to copy from")
    if path:
        check_file(Path(path))
    return Corpus(width, slots, str(path))
