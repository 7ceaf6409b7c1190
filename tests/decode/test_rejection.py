"""The law of texts under rejection, computed by enumerating drafts and decisions, against plain sampling's."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.decode import sampling
from jaxspec.decode.acceptance import process_block
from jaxspec.decode.rejection import Rejection, walk_down
from jaxspec.decode.sampling import Sampling, SamplingFlags
from jaxspec.decode.tree import tree_of
from jaxspec.decode.types import Context, Draft
from jaxspec.decode.typical import Typical

V, NEW, ROWS = 4, 3, 4096
ALL = SamplingFlags(stochastic=True, filters=True, penalty=True, bans=True)
BANNED = jnp.asarray([False, False, True, False])
NOTHING = jnp.zeros((V,), bool)
ALMOST_ONE = np.float32(1 - 2.0**-24)
TOPOLOGIES = {"chain": (0, 1, 2), "siblings": (0, 0, 0), "tree": (0, 0, 1)}  # parents, by block node
SETTINGS = {
    "temperature": {"temperature": 0.6},
    "top_k": {"temperature": 1.4, "top_k": 2},
    "top_p": {"top_p": 0.7},
    "min_p": {"min_p": 0.35},
    "penalty": {"repetition_penalty": 1.7},
    "all": {"temperature": 1.2, "top_k": 3, "top_p": 0.95, "min_p": 0.1, "repetition_penalty": 1.3, "banned": True},
    "cold": {"temperature": 0.0, "repetition_penalty": 1.5},
}
PREFIXES = [prefix for count in range(NEW) for prefix in itertools.product(range(V), repeat=count)]


def settings_of(row: dict, lanes: int) -> Sampling:
    defaults = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, seed=0)
    kinds = dict(top_k=np.int32, seed=np.uint32)
    return Sampling(
        **{name: jnp.full((lanes,), (defaults | row)[name], kinds.get(name, np.float32)) for name in Sampling._fields}
    )


def random_table(seed: int) -> np.ndarray:
    """Logits by text: row `code` is what a model says after the text of that code."""
    return np.random.default_rng(seed).normal(size=(ROWS, V)).astype(np.float32) * 1.5


class Outcomes(NamedTuple):
    """Every way a block can go, one a lane: where from, what was accepted, the law of the next token, how likely."""

    prefix: list[tuple[int, ...]]
    path: list[tuple[int, ...]]
    residual: np.ndarray
    weight: np.ndarray


@functools.partial(jax.jit, static_argnames=("parents", "drawn"))
def judge(target, drafter, claimed, tokens, length, ids, uniform, settings, banned, parents, drawn):
    """Walks of all lanes, how probable each proposal was, and the plain law, from tables of both models.

    Proposals are drawn from table `drafter`, and `log_q` is made from `claimed`.
    """
    lanes, nodes = ids.shape
    depths: list[int] = []
    for parent in parents:
        depths.append(1 if parent == 0 else depths[parent - 1] + 1)

    def all_lanes(values) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(values, jnp.int32), (lanes, nodes))

    draft = Draft(ids, all_lanes(parents), all_lanes(depths), 0 * ids, jnp.ones_like(ids, bool), 0 * ids)
    root = jnp.take_along_axis(tokens, length[:, None] - 1, axis=1)[:, 0]
    context = Context(tokens, length, length, settings.seed, length > 0, settings)
    inside = jnp.arange(tokens.shape[1]) < length[:, None]
    code = jnp.zeros((lanes,), jnp.int32)
    for place in range(tokens.shape[1]):
        code = jnp.where(inside[:, place], code * (V + 1) + tokens[:, place] + 1, code)
    codes = [code]
    for node, parent in enumerate(parents):
        codes.append(codes[parent] * (V + 1) + ids[:, node] + 1)
    row = jnp.stack(codes, axis=1) % ROWS
    tree = tree_of(root, draft, nodes)
    law_p = sampling.probabilities(process_block(target[row], tree, context, settings, ALL, banned), settings)

    def drawn_from(table) -> tuple[jax.Array, jax.Array]:
        """(B, N, V) the logarithms of what every node is drawn from, and (B, N) whether anything is left to draw."""
        law, logs, valids = process_block(table[row], tree, context, settings, ALL, banned), [], []
        for node, parent in enumerate(parents):
            left = law[:, parent]
            for sibling in range(node):  # drawn without replacement
                if parents[sibling] == parent:
                    left = jnp.where(jnp.arange(V) == ids[:, sibling, None], -jnp.inf, left)
            valids.append(jnp.isfinite(jnp.max(left, axis=-1)))
            best = jnp.arange(V) == sampling.argmax(left)[0][:, None]
            warm = settings.temperature[:, None] > 0
            logs.append(jnp.where(warm, jax.nn.log_softmax(left, axis=-1), jnp.where(best, 0.0, -jnp.inf)))
        return jnp.stack(logs, axis=1), jnp.stack(valids, axis=1)

    truly, valid = drawn_from(drafter)
    log_q, _ = drawn_from(claimed)
    proposed = jnp.take_along_axis(jnp.exp(truly), ids[:, :, None], axis=2)[:, :, 0]
    proposed = jnp.where(valid, proposed, (ids == 0).astype(jnp.float32))
    valid = jnp.pad(valid, ((0, 0), (1, 0)), constant_values=True)
    tree = tree._replace(log_q=log_q, valid=valid) if drawn else tree
    walk = walk_down(law_p, tree, uniform, nodes)
    return walk, proposed, law_p[:, 0]


def enumerate_blocks(
    topology: str, target: np.ndarray, drafter: np.ndarray, row: dict, *, drawn: bool = True, claimed=None
):
    """Every outcome of one block after every prefix, and the plain law of the next token there.

    A node that is judged is accepted with the chance the walk reports and rejected otherwise; both are enforced by
    uniforms of 0 and almost 1. Drafts that are not drawn are one fixed proposal a prefix.
    """
    parents = TOPOLOGIES[topology]
    nodes = len(parents)
    drafts = list(itertools.product(range(V), repeat=nodes))
    if not drawn:
        drafts = drafts[::9]  # some with equal siblings
    decisions = list(itertools.product((0, 1), repeat=nodes))
    lanes = list(itertools.product(PREFIXES, drafts, decisions))
    tokens = np.zeros((len(lanes), NEW), np.int32)  # a prompt of one token, then the prefix
    for lane, (prefix, _, _) in enumerate(lanes):
        tokens[lane, 1 : 1 + len(prefix)] = prefix
    length = np.array([1 + len(prefix) for prefix, _, _ in lanes], np.int32)
    ids = np.array([draft for _, draft, _ in lanes], np.int32)
    accept = np.array([decision for _, _, decision in lanes])
    walk, proposed, plain = jax.device_get(
        judge(
            target,
            drafter,
            drafter if claimed is None else claimed,
            tokens,
            length,
            ids,
            np.where(accept == 1, np.float32(0), ALMOST_ONE),
            settings_of({k: v for k, v in row.items() if k != "banned"}, len(lanes)),
            BANNED if row.get("banned") else NOTHING,
            parents,
            drawn,
        )
    )
    chance = walk.chance.astype(np.float64)
    asked = chance >= 0
    weight = np.prod(np.where(asked, np.where(accept == 1, chance, 1 - chance), 1 - accept), axis=1)
    if drawn:
        weight = weight * np.prod(proposed.astype(np.float64), axis=1)
    path = [tuple(ids[i, walk.path[i, 1 : 1 + walk.accepted[i]] - 1]) for i in range(len(lanes))]
    keep = np.flatnonzero(weight > 0)
    outcomes = Outcomes(
        [lanes[i][0] for i in keep], [path[i] for i in keep], walk.residual[keep].astype(np.float64), weight[keep]
    )
    next_token = {prefix: plain[i].astype(np.float64) for i, (prefix, _, _) in enumerate(lanes)}
    return outcomes, next_token, [lanes[i][1] for i in keep]


def law_of_texts(outcomes: Outcomes) -> dict[tuple[int, ...], np.ndarray]:
    """For every prefix, the law (V, V, V) of the first three tokens when blocks follow each other from it on."""
    by_prefix: dict[tuple[int, ...], list[int]] = {}
    for index, prefix in enumerate(outcomes.prefix):
        by_prefix.setdefault(prefix, []).append(index)
    laws: dict[tuple[int, ...], np.ndarray] = {}
    for prefix in reversed(PREFIXES):  # longer ones first
        law = np.zeros((V,) * NEW)
        for index in by_prefix[prefix]:
            text, weight = prefix + outcomes.path[index], outcomes.weight[index]
            if len(text) >= NEW:
                law[text[:NEW]] += weight
                continue
            for token in range(V):
                said, share = (*text, token), weight * outcomes.residual[index, token]
                if len(said) == NEW:
                    law[said] += share
                elif share > 0:
                    law += share * laws[said]
        laws[prefix] = law
    return laws


def plain_law(next_token: dict[tuple[int, ...], np.ndarray]) -> np.ndarray:
    law = np.zeros((V,) * NEW)
    for text in itertools.product(range(V), repeat=NEW):
        law[text] = np.prod([next_token[text[:i]][text[i]] for i in range(NEW)])
    return law


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("name", SETTINGS)
def test_the_joint_law_of_three_tokens_is_plain_samplings(name: str, topology: str) -> None:
    outcomes, next_token, _ = enumerate_blocks(topology, random_table(1), random_table(2), SETTINGS[name])
    got, expected = law_of_texts(outcomes)[()], plain_law(next_token)
    assert expected.sum() == pytest.approx(1, abs=1e-6)
    assert np.count_nonzero(expected) > (1 if name != "cold" else 0)
    np.testing.assert_allclose(got, expected, atol=1e-6, rtol=0)


def test_a_proposal_that_was_not_drawn_leaves_the_law_too() -> None:
    """One by one, for every fixed proposal: so for any that does not know the decisions to come."""
    for topology in TOPOLOGIES:
        outcomes, next_token, drafts = enumerate_blocks(
            topology, random_table(3), random_table(4), SETTINGS["all"], drawn=False
        )
        for draft in set(drafts):
            chosen = [i for i, other in enumerate(drafts) if other == draft]
            part = Outcomes(
                [outcomes.prefix[i] for i in chosen],
                [outcomes.path[i] for i in chosen],
                outcomes.residual[chosen],
                outcomes.weight[chosen],
            )
            np.testing.assert_allclose(law_of_texts(part)[()], plain_law(next_token), atol=1e-6, rtol=0)


def test_a_wrong_log_q_would_show() -> None:
    """The check has teeth: draws that claim another law bias the text."""
    outcomes, next_token, _ = enumerate_blocks(
        "chain", random_table(1), random_table(2), SETTINGS["temperature"], claimed=random_table(5)
    )
    assert np.abs(law_of_texts(outcomes)[()] - plain_law(next_token)).max() > 1e-2


def test_expected_length_and_acceptance_of_independent_draws() -> None:
    """Tokens a block are (1 - a**(n + 1)) / (1 - a), with a = sum of min(p, q) (Leviathan et al., Eq. 1)."""
    rng = np.random.default_rng(6)
    target, drafter = (np.tile(rng.normal(size=(1, V)), (ROWS, 1)).astype(np.float32) for _ in range(2))
    outcomes, _, _ = enumerate_blocks("chain", target, drafter, {})
    p, q = (np.exp(x[0]) / np.exp(x[0]).sum() for x in (target, drafter))
    a = np.minimum(p, q).sum()
    first = [i for i, prefix in enumerate(outcomes.prefix) if prefix == ()]
    lengths = np.array([len(outcomes.path[i]) for i in first])
    weight = outcomes.weight[first]
    assert weight.sum() == pytest.approx(1, abs=1e-6)
    assert np.sum(weight * (lengths > 0)) == pytest.approx(a, abs=1e-6)
    assert np.sum(weight * (lengths + 1)) == pytest.approx((1 - a**4) / (1 - a), abs=1e-5)


def test_a_draft_equal_to_the_target_is_always_accepted() -> None:
    table = random_table(7)
    for topology, depth in (("chain", 3), ("tree", 1)):
        outcomes, _, _ = enumerate_blocks(topology, table, table, {"temperature": 0.8})
        sure = sum(w for w, path in zip(outcomes.weight, outcomes.path, strict=True) if len(path) >= depth)
        assert sure == pytest.approx(len(PREFIXES), abs=1e-4)


@functools.partial(jax.jit, static_argnames=("parents", "acceptance", "lanes"))
def one_block(logits, ids, parents: tuple[int, ...], acceptance, lanes: int, temperature):
    """The same draft for requests of many seeds, judged by `acceptance`."""
    nodes = len(parents)

    def all_lanes(values) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(values, jnp.int32), (lanes, nodes))

    depth = [1 if parent == 0 else 2 for parent in parents]
    zeros = jnp.zeros((lanes, nodes), jnp.int32)
    draft = Draft(all_lanes(ids), all_lanes(parents), all_lanes(depth), zeros, zeros == 0, zeros)
    settings = settings_of({"temperature": temperature}, lanes)._replace(seed=jnp.arange(lanes, dtype=jnp.uint32))
    length = jnp.ones((lanes,), jnp.int32)
    context = Context(jnp.zeros((lanes, 4), jnp.int32), length, length, settings.seed, length > 0, settings)
    tree = tree_of(jnp.zeros((lanes,), jnp.int32), draft, 2)
    flags = SamplingFlags(stochastic=True)
    return acceptance.accept(
        jnp.broadcast_to(jnp.asarray(logits), (lanes, *logits.shape)), tree, 2, context, settings, flags, NOTHING, 2
    )


def test_verdicts_have_the_law_of_the_walk() -> None:
    logits = np.random.default_rng(8).normal(size=(4, V)).astype(np.float32)
    ids, parents = np.array([1, 2, 3]), (0, 0, 1)
    verdict = jax.device_get(one_block(logits, ids, parents, Rejection(), 20_000, 1.0))
    law = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    first = np.bincount(verdict.ids[:, 0], minlength=V) / 20_000
    np.testing.assert_allclose(first, law[0], atol=0.015)
    after = verdict.ids[verdict.ids[:, 0] == 1]
    np.testing.assert_allclose(np.bincount(after[:, 1], minlength=V) / len(after), law[1], atol=0.02)
    assert np.all(
        verdict.path[:, 1][verdict.accepted > 0] == np.where(verdict.ids[:, 0] == 1, 1, 2)[verdict.accepted > 0]
    )
    np.testing.assert_array_equal(verdict.chosen, np.broadcast_to(np.argmax(logits, axis=1), (20_000, 4)))


def test_logits_that_are_no_numbers_end_the_text() -> None:
    logits = np.zeros((4, V), np.float32)
    logits[0, 1] = np.nan
    for temperature in (0.0, 1.0):
        verdict = one_block(logits, np.array([1, 2, 3]), (0, 0, 1), Rejection(), 3, temperature)
        assert np.all(np.asarray(verdict.accepted) == 0) and np.all(np.asarray(verdict.ids)[:, 0] == V)


def test_typical_acceptance_follows_its_threshold() -> None:
    law = np.array([[0.5, 0.3, 0.15, 0.05], [0.25] * 4, [0.97, 0.01, 0.01, 0.01], [0.25] * 4], np.float32)
    entropy = -(law * np.log(law)).sum(axis=1)
    for floor, scale in ((0.09, 0.3), (0.4, 0.9)):
        threshold = np.minimum(floor, scale * np.exp(-entropy))
        for token in range(V):
            # One child of the root, and below it one of another law.
            verdict = jax.device_get(
                one_block(np.log(law)[[0, 2, 1]], np.array([token, 1]), (0, 1), Typical(floor, scale), 50, 1.0)
            )
            first = (law[0, token] > threshold[0]) | (verdict.chosen[:, 0] == token)
            second = (law[2, 1] > threshold[2]) | (verdict.chosen[:, 1] == 1)
            np.testing.assert_array_equal(verdict.accepted, first.astype(int) * (1 + second.astype(int)))
    with pytest.raises(ValueError, match="floor=0"):
        Typical(floor=0)
    with pytest.raises(ValueError, match="scale=-1"):
        Typical(scale=-1)


def test_typical_acceptance_says_that_it_is_lossy_and_is_not_where_nothing_is_drawn() -> None:
    assert not Typical().lossless and Rejection().lossless
    logits = np.random.default_rng(9).normal(size=(3, V)).astype(np.float32)
    best = int(np.argmax(logits[0]))
    for token in range(V):
        verdict = one_block(logits, np.array([token, 0]), (0, 1), Typical(), 2, 0.0)
        assert np.all((np.asarray(verdict.accepted) > 0) == (token == best))
