"""Drafts from everything said before: earlier requests, other lanes, and optionally a file.

A bounded memory of past text with a hash table from the last three, and the last two, tokens to where they were
last followed by something: the device form of a suffix index (Oliaro et al., arXiv 2411.04975) or a datastore (He et
al., REST, arXiv 2311.08252). A look-up costs the same however much text there is. Every hit is compared with the
text itself, so that collisions, and entries whose text has been overwritten, find nothing.

B lanes, T tokens a lane remembers, H buckets, W width.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.drafters.chain import chain
from jaxspec.drafters.suffix import match_class

QUERIES = (3, 2)  # tokens looked up, the longer match being preferred
LONGEST = 10  # tokens compared to tell matches apart
BOUNDARY = -1  # between texts; never matched, never proposed
FACTORS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)


class Memory(NamedTuple):
    """Text in rings, one a lane, and where to find it.

    Attributes:
      tokens: (B, T) int32; absolute position p of a lane stands at p % T.
      head: (B,) int32 absolute position of the next token.
      table: (queries, H) int32, for the tokens hashed there the place, lane * T + p % T, of the newest token
        that followed them; -1 for none.
    """

    tokens: jax.Array
    head: jax.Array
    table: jax.Array


@dataclasses.dataclass(frozen=True)
class Corpus:
    """One chain of up to `width` tokens.

    Attributes:
      width: W.
      slots: tokens remembered, all lanes together, and buckets of the table.
      path: file of texts known from the start, or "".
    """

    width: int
    slots: int
    path: str

    top = 0
    is_chain = True

    @property
    def nodes(self) -> int:
        return self.width

    @property
    def depth(self) -> int:
        return self.width

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.nodes,)

    @property
    def sources(self) -> tuple[str, ...]:
        return ("corpus",)

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
        if self.slots < 16 * lanes:
            raise ValueError(f"slots={self.slots} is below 16 for each of {lanes} lanes; raise it or use fewer lanes")
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

        draft = chain(jnp.take_along_axis(ids, best[:, :, None], axis=1)[:, 0], pick(proposed))
        evidence = jnp.broadcast_to(match_class(pick(matched))[:, None], draft.ids.shape)
        return draft._replace(evidence=evidence), state

    def observe(
        self, params: tuple[Memory, ...], state: Memory, context: Context, draft: Draft, verdict: Verdict
    ) -> Memory:
        # What a limit or a stop rule cuts off is remembered too: it is what the model would have said.
        return append(state, verdict.ids, jnp.where(context.live, verdict.accepted + 1, 0))


def empty_memory(lanes: int, tokens: int, buckets: int) -> Memory:
    """A memory of nothing; `buckets` is a power of two."""
    return Memory(
        tokens=jnp.full((lanes, tokens), BOUNDARY, jnp.int32),
        head=jnp.zeros((lanes,), jnp.int32),
        table=jnp.full((len(QUERIES), buckets), -1, jnp.int32),
    )


def append(memory: Memory, run: jax.Array, count: jax.Array) -> Memory:
    """The memory after the first `count` (B,) tokens of `run` (B, X) int32 were said."""
    lanes, size = memory.tokens.shape
    step = jnp.arange(run.shape[1], dtype=jnp.int32)
    kept = (step < count[:, None]) & (step >= count[:, None] - size)
    place = (memory.head[:, None] + step) % size
    lane = jnp.arange(lanes, dtype=jnp.int32)[:, None]
    tokens = memory.tokens.at[lane, jnp.where(kept, place, size)].set(run, mode="drop")
    head = memory.head + count
    table = memory.table
    for index, query in enumerate(QUERIES):
        back = jnp.arange(1, query + 1, dtype=jnp.int32)
        before = tokens[lane[:, :, None], (place[:, :, None] - back) % size]  # (B, X, query), the latest first
        position = memory.head[:, None] + step
        whole = kept & (run >= 0) & jnp.all(before >= 0, axis=2)
        whole &= (position >= query) & (position - query >= head[:, None] - size)
        table = table.at[index].set(_enter(table[index], _hash(before, table.shape[1]), lane * size + place, whole))
    return Memory(tokens, head, table)


def _enter(table: jax.Array, bucket: jax.Array, place: jax.Array, wanted: jax.Array) -> jax.Array:
    """(H,) table with `place` (B, X) at `bucket` (B, X) where `wanted`; the last of a bucket stays."""
    order = jnp.arange(1, bucket.size + 1, dtype=jnp.int32).reshape(bucket.shape[::-1]).T  # later steps, then lanes
    bucket = jnp.where(wanted, bucket, table.shape[0])
    last = jnp.zeros_like(table).at[bucket].max(order, mode="drop")
    stays = wanted & (last.at[bucket].get(mode="fill", fill_value=0) == order)
    return table.at[jnp.where(stays, bucket, table.shape[0])].set(place, mode="drop")


def lookup(memory: Memory, end: jax.Array, known: jax.Array, width: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What followed the end of a text when the memory last held it, one candidate for every query.

    Args:
      memory: of B lanes, any of which may hold the answer.
      end: (LONGEST,) int32 last tokens of the text, the last first.
      known: () int32 how many of them there are.
      width: W.

    Returns:
      (queries, W) int32 continuations, (queries,) int32 tokens before them that repeat the end of the text, at most
      `LONGEST` and 0 for no candidate, and (queries,) int32 how many tokens of the continuation there are.
    """
    size = memory.tokens.shape[1]
    place = jnp.stack(
        [table[_hash(end[:query], table.shape[0])] for query, table in zip(QUERIES, memory.table, strict=True)]
    )
    lane, slot = jnp.maximum(place, 0) // size, jnp.maximum(place, 0) % size
    head = memory.head[lane]
    ahead = (head - 1 - slot) % size + 1  # tokens from the candidate to the newest of its lane
    position = head - ahead

    back = jnp.arange(1, LONGEST + 1, dtype=jnp.int32)
    there = memory.tokens[lane[:, None], (slot[:, None] - back) % size]
    reach = position[:, None] - back >= jnp.maximum(head - size, 0)[:, None]
    same = (there == end) & reach & (jnp.arange(LONGEST, dtype=jnp.int32) < known)
    matched = jnp.sum(jnp.cumprod(same.astype(jnp.int32), axis=1), axis=1)

    step = jnp.arange(width, dtype=jnp.int32)
    ids = memory.tokens[lane[:, None], (slot[:, None] + step) % size]
    there_is = jnp.cumprod(((ids >= 0) & (step < ahead[:, None])).astype(jnp.int32), axis=1)
    matched = jnp.where((place >= 0) & (matched >= jnp.asarray(QUERIES, jnp.int32)), matched, 0)
    return jnp.maximum(ids, 0), matched, jnp.where(matched > 0, jnp.sum(there_is, axis=1), 0)


def _end(context: Context) -> tuple[jax.Array, jax.Array]:
    """(B, LONGEST) int32 last tokens, the last first, and (B,) int32 how many of them there are."""
    index = context.length[:, None] - 1 - jnp.arange(LONGEST, dtype=jnp.int32)
    return jnp.take_along_axis(context.tokens, jnp.maximum(index, 0), axis=1), context.length


def _hash(tokens: jax.Array, buckets: int) -> jax.Array:
    """(...,) int32 bucket below a power of two, of tokens (..., query)."""
    total = jnp.zeros(tokens.shape[:-1], jnp.uint32)
    for index in range(tokens.shape[-1]):
        total += (tokens[..., index].astype(jnp.uint32) + 1) * jnp.uint32(FACTORS[index])
    total = (total ^ (total >> 15)) * jnp.uint32(0x2C1B3C6D)
    return ((total ^ (total >> 13)) & jnp.uint32(buckets - 1)).astype(jnp.int32)


def read_texts(path: Path, language_model: Any) -> list[list[int]]:
    """Token ids of every text of a file.

    A `.jsonl` file holds one text a line: a string, or a list of token ids. Any other is one text.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read as that, is empty, holds ids outside the vocabulary, or texts for a model without
        tokenizer; the message names file and line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"corpus file {path} does not exist or is no file; give the path of a text or .jsonl")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"corpus file {path} cannot be read as UTF-8 text: {error}") from None
    texts = []
    for number, text in _entries(content, path):
        where = f"corpus file {path}, line {number}"
        if isinstance(text, str):
            if language_model.tokenizer is None:
                raise ValueError(f"{where} is text but {language_model.name} has no tokenizer; give lists of token ids")
            texts.append(list(language_model.tokenizer.encode(text, add_special=False)))
        else:
            wrong = [i for i in text if not 0 <= i < language_model.config.vocabulary]
            if wrong:
                raise ValueError(
                    f"{where} holds id {wrong[0]}, outside the vocabulary of {language_model.config.vocabulary} ids; "
                    "was it encoded with another model's tokenizer?"
                )
            texts.append(text)
    if not any(texts):
        raise ValueError(f"corpus file {path} holds no text; leave the path out or put some in")
    return texts


def _entries(content: str, path: Path) -> list[tuple[int, str | list[int]]]:
    """Line numbers and texts."""
    if path.suffix != ".jsonl":
        return [(1, content)]
    entries = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"corpus file {path}, line {number} is not JSON: {error}") from None
        if not isinstance(entry, str) and not (isinstance(entry, list) and all(type(i) is int for i in entry)):
            raise ValueError(f"corpus file {path}, line {number} is neither a string nor a list of ids: {line[:60]}")
        entries.append((number, entry))
    return entries


def corpus(width: int = 10, slots: int = 2**16, path: str = "") -> Corpus:
    """Drafts by copying from earlier requests, other lanes and a file.

    Args:
      width: most tokens proposed a step.
      slots: tokens remembered, all lanes together; each lane forgets its oldest.
      path: a UTF-8 text, or a `.jsonl` with a string or a list of token ids a line, known from the start.

    Raises:
      ValueError: `width` is below 1 or `slots` below 16.
    """
    if width < 1:
        raise ValueError(f"width={width} is below 1; corpus needs at least one token")
    if slots < 16:
        raise ValueError(f"slots={slots} is below 16; there would be nothing to copy from")
    return Corpus(width, slots, str(path))
