"""A bounded memory of text that was said, with a hash table from tokens to where they were last followed.

The device form of a suffix index (Oliaro et al., arXiv 2411.04975) or a datastore (He et al., REST, arXiv
2311.08252): the last three, and the last two, tokens of a text lead to the newest token that followed them. A look-up
costs the same however much text there is. Every hit is compared with the text itself, so that collisions, and entries
whose text has been overwritten, find nothing.

B lanes, T tokens a lane remembers, H buckets, W width, X tokens added at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

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


def _hash(tokens: jax.Array, buckets: int) -> jax.Array:
    """(...,) int32 bucket below a power of two, of tokens (..., query)."""
    total = jnp.zeros(tokens.shape[:-1], jnp.uint32)
    for index in range(tokens.shape[-1]):
        total += (tokens[..., index].astype(jnp.uint32) + 1) * jnp.uint32(FACTORS[index])
    total = (total ^ (total >> 15)) * jnp.uint32(0x2C1B3C6D)
    return ((total ^ (total >> 13)) & jnp.uint32(buckets - 1)).astype(jnp.int32)
