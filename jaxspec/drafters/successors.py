"""What likely follows a token, and a pair of tokens where that was seen: tables that verified nodes rewrite.

A pair's successors stand in a hashed table, each bucket with the hash of the pair it holds. A pair that finds its
bucket taken finds nothing, or, once in 2^32 / P, another pair's, which costs a rejected draft and never a wrong token.

V vocabulary, R successors, P buckets, X writes. Arrays may have an axis of B lanes in front, each with its own table.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.hashing import ODD, scrambled


class Successors(NamedTuple):
    """Attributes:
    single: (V, R) int32 by token, the likeliest first; -1 where nothing is known.
    pair: (P, R) int32 by bucket.
    holder: (P,) uint32 hash of the pair whose successors a bucket holds, 0 for none. P is 0, or a power of two.
    """

    single: jax.Array
    pair: jax.Array
    holder: jax.Array


def initial(single: jax.Array, buckets: int) -> Successors:
    """A table that knows single tokens alone: a copy, because a loop's state is donated to it."""
    pair = jnp.full((buckets, single.shape[1]), -1, jnp.int32)
    return Successors(jnp.array(single, copy=True), pair, jnp.zeros((buckets,), jnp.uint32))


def find(table: Successors, before: jax.Array, token: jax.Array, rank: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The successor of `rank` (n,) of `token` (n,), preferably of the pair with the token `before` it (n,).

    Returns:
      (n,) int32, -1 where none is known, and (n,) bool whether it is the pair's.
    """
    single = table.single[token, rank]
    if not len(table.holder):
        return single, jnp.zeros(single.shape, bool)
    pair = pair_hash(before, token)
    bucket = _bucket(pair, table)
    seen = table.holder[bucket] == pair
    return jnp.where(seen, table.pair[bucket, rank], single), seen


def learned(
    table: Successors, before: jax.Array, token: jax.Array, successors: jax.Array, order: jax.Array, wanted: jax.Array
) -> Successors:
    """The table after `token` (X,), with `before` (X,) in front of it, turned out to have `successors` (X, R).

    Only what is `wanted` (X,) bool counts, and of several writes to one place the one of the lowest `order` (X,).
    """
    wins = wanted & ~_beaten(token, order, wanted)
    single = table.single.at[jnp.where(wins, token, table.single.shape[0])].set(successors, mode="drop")
    buckets = len(table.holder)
    if not buckets:
        return table._replace(single=single)
    pair = pair_hash(before, token)
    bucket = _bucket(pair, table)
    place = jnp.where(wanted & ~_beaten(bucket, order, wanted), bucket, buckets)
    return Successors(
        single, table.pair.at[place].set(successors, mode="drop"), table.holder.at[place].set(pair, mode="drop")
    )


def pair_hash(before: jax.Array, token: jax.Array) -> jax.Array:
    """uint32 of a pair of tokens, never 0."""
    first = scrambled((before.astype(jnp.uint32) + 1) * jnp.uint32(ODD))
    return jnp.maximum(scrambled((first ^ token.astype(jnp.uint32)) * jnp.uint32(ODD)), 1)


def _bucket(pair: jax.Array, table: Successors) -> jax.Array:
    return (pair & jnp.uint32(len(table.holder) - 1)).astype(jnp.int32)


def _beaten(place: jax.Array, order: jax.Array, wanted: jax.Array) -> jax.Array:
    """(X,) bool whether another wanted write to the same place has a lower order."""
    rival = (place[:, None] == place[None, :]) & (order[None, :] < order[:, None]) & wanted[None, :]
    return jnp.any(rival, axis=1)
