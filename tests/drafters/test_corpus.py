"""What the memory finds against a search without hashes, and what a file may hold."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec.decode.loop import run_slice
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.drafters.corpus import corpus
from jaxspec.drafters.text_memory import BOUNDARY, LONGEST, QUERIES, append, empty_memory, lookup

NEW, WIDTH = 24, 4
EVERY_OTHER = [pytest.param(0.0, 1, marks=pytest.mark.slow), pytest.param(1.5, 3, marks=pytest.mark.slow)]
extend = jax.jit(append)
find = jax.jit(lookup, static_argnames=("width",))


class Said:
    """Everything every lane ever said, and in what order."""

    def __init__(self, lanes: int, size: int) -> None:
        self.lanes, self.size, self.clock = [[] for _ in range(lanes)], size, 0

    def append(self, run: np.ndarray, count: np.ndarray) -> None:
        for step in range(run.shape[1]):  # later tokens of a block are newer, whatever the lane
            for lane, tokens in enumerate(self.lanes):
                if step < count[lane]:
                    self.clock += 1
                    tokens.append((int(run[lane, step]), self.clock))

    def search(self, text: list[int], query: int) -> tuple[int, list[int]] | None:
        """Match length and continuation at the newest place where the last `query` tokens stood, if remembered."""
        newest, found = 0, None
        for tokens in self.lanes:
            ids, forgotten = [token for token, _ in tokens], max(len(tokens) - self.size, 0)
            for place in range(query, len(ids)):
                same = len(text) >= query and ids[place - query : place] == text[-query:] and ids[place] != BOUNDARY
                if same and tokens[place][1] > newest:
                    newest = tokens[place][1]
                    most = min(place - forgotten, LONGEST, len(text))
                    matched = max(m for m in range(max(most, 0) + 1) if m == 0 or ids[place - m : place] == text[-m:])
                    rest = [*ids[place : place + WIDTH], BOUNDARY]
                    found = (matched, rest[: rest.index(BOUNDARY)]) if matched >= query else None
        return found


def ending(text: list[int]) -> tuple[jax.Array, jax.Array]:
    last = [*text[::-1], *[7] * LONGEST][:LONGEST]
    return jnp.asarray(last, jnp.int32), jnp.int32(len(text))


@pytest.mark.parametrize("buckets", [2**16, 16])
def test_hits_equal_a_search_without_hashes(buckets: int) -> None:
    """Many buckets find what is newest; few lose some of it, and never find what is not there."""
    rng = np.random.default_rng(0)
    memory, said, hits, missed = empty_memory(3, 20, buckets), Said(3, 20), 0, 0
    for _ in range(40):
        run, count = rng.integers(0, 4, (3, 9)), rng.integers(0, 10, 3) * (rng.random(3) < 0.7)
        run[rng.random((3, 9)) < 0.05] = BOUNDARY
        arguments = jnp.asarray(run, jnp.int32), jnp.asarray(count, jnp.int32)
        memory = extend(memory, *arguments)
        said.append(run, count)
        assert memory.head.shape == (3,)
        for _ in range(4):
            text = rng.integers(0, 4, rng.integers(1, 12)).tolist()
            ids, matched, proposed = find(memory, *ending(text), WIDTH)
            for index, query in enumerate(QUERIES):
                expected = said.search(text, query)
                got = ids[index, : int(proposed[index])].tolist()
                if buckets > 16:
                    assert (expected is not None) == bool(matched[index])
                    if expected is not None:
                        assert (int(matched[index]), got) == expected
                elif matched[index]:
                    assert any(occurs(text[-query:] + got, [t for t, _ in tokens[-20:]]) for tokens in said.lanes)
                hits, missed = hits + bool(matched[index]), missed + (expected is not None and not matched[index])
    assert hits > 50 and (missed == 0) == (buckets > 16)


def occurs(piece: list[int], text: list[int]) -> bool:
    return any(text[start : start + len(piece)] == piece for start in range(len(text)))


def test_a_run_longer_than_the_memory_leaves_its_end() -> None:
    run = np.arange(30)[None]
    memory = extend(empty_memory(1, 8, 64), jnp.asarray(run, jnp.int32), jnp.asarray([30], jnp.int32))
    assert sorted(memory.tokens[0].tolist()) == list(range(22, 30))
    _, matched, _ = find(memory, *ending([20, 21, 22]), WIDTH)
    assert not matched.any()
    ids, matched, proposed = find(memory, *ending([24, 25, 26]), WIDTH)
    assert matched.tolist() == [3, 3] and proposed.tolist() == [3, 3] and ids[0, :3].tolist() == [27, 28, 29]


def test_lanes_teach_each_other_and_idle_ones_nothing() -> None:
    drafter = corpus(WIDTH, 64)
    tokens = jnp.asarray([[1, 2, 3, 4, 5, 6], [9, 2, 3, 0, 0, 0], [1, 2, 3, 0, 0, 0]], jnp.int32)
    length = jnp.asarray([6, 3, 3], jnp.int32)
    context = Context(tokens, length, length, length.astype(jnp.uint32), jnp.asarray([True, True, False]))
    init, admit, propose, observe = map(jax.jit, [drafter.init, drafter.admit, drafter.propose, drafter.observe])
    state = init((), context)
    state = admit((), state, context, context.live)
    draft, _ = propose((), state, context)
    assert draft.ids[1].tolist()[:3] == [4, 5, 6] and draft.valid[1].tolist() == [True, True, True, False]
    assert not draft.valid[0].any()
    block = jnp.asarray([[7, 8, 0, 0, 0]] * 3, jnp.int32)
    verdict = Verdict(jnp.asarray([1, 0, 1], jnp.int32), block, block, block, block[:, :, None])
    after = observe((), state, context, draft, verdict)
    assert (after.head - state.head).tolist() == [2, 1, 0]
    np.testing.assert_array_equal(after.tokens[2], state.tokens[2])
    more = context._replace(length=jnp.asarray([6, 3, 3], jnp.int32), tokens=tokens.at[1].set(jnp.arange(4, 10)))
    assert propose((), after, more)[0].ids[1].tolist()[:2] == [7, 8]


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "lanes"), [(0.0, 3), (1.5, 1), *EVERY_OTHER])
def test_ids_equal_plain_ids(temperature: float, lanes: int) -> None:
    lm, rng = toy_model(0), np.random.default_rng(lanes)
    prompts = [rng.integers(0, 7, rng.integers(1, 70)).tolist() for _ in range(5)]
    options = dict(max_new_tokens=NEW, temperature=temperature, seed=list(range(5)), lanes=lanes, cache=128)
    drafter = corpus(WIDTH, 256)
    drafted = jaxspec.generate(lm, prompts, drafter=drafter, **options)
    if temperature:
        assert drafted.ids == jaxspec.generate(lm, prompts, **options).ids
    else:
        assert drafted.ids == [greedy_continuation(lm, prompt, NEW) for prompt in prompts]
        assert drafted.statistics.tokens_per_call > 1.5
    compiled = run_slice._cache_size()
    again = jaxspec.generate(lm, prompts, drafter=drafter, **options)
    assert again.statistics == drafted.statistics and run_slice._cache_size() == compiled


def first_draft(drafter, lm, prompt: list[int]) -> Draft:
    params = drafter.prepare(lm)
    tokens, length = jnp.asarray([prompt], jnp.int32), jnp.asarray([len(prompt)], jnp.int32)
    context = Context(tokens, length, length, length.astype(jnp.uint32), length > 0)
    return jax.jit(functools.partial(drafter.propose, params))(drafter.init(params, context), context)[0]


def test_a_file_is_known_from_the_start(tmp_path) -> None:
    lines = tmp_path / "texts.jsonl"
    lines.write_text(json.dumps("abcde") + "\n\n" + json.dumps([0, 2, 1, 5]) + "\n")
    draft = first_draft(corpus(WIDTH, 64, path=str(lines)), toy_model(0), [5, 0, 2])
    assert draft.ids[0, :2].tolist() == [1, 5] and draft.valid[0].tolist() == [True, True, False, False]
    text = tmp_path / "text.txt"
    text.write_text("abcde")
    draft = first_draft(corpus(WIDTH, 64, path=str(text)), toy_model(0), [0, 1, 2])
    assert draft.ids[0, :2].tolist() == [3, 4] and draft.evidence[0].tolist() == [2] * WIDTH


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\xff", "cannot be read as UTF-8"),
        (b"", "holds no text"),
        (b"[1, 2", "line 1 is not JSON"),
        (b'[1]\n{"a": 1}', "line 2 is neither a string nor a list of ids"),
        (b"[1, 7]", "line 1 holds id 7, outside the vocabulary of 7"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, content: bytes, message: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        corpus(path=str(path)).prepare(toy_model(0))


def test_a_missing_file_is_named_before_there_is_a_model(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing.txt does not exist or is no file; give the path of one"):
        corpus(path=str(tmp_path / "nothing.txt"))
    (tmp_path / "texts.jsonl").write_text("[1, 2")
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        corpus(path=str(tmp_path / "texts.jsonl"))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="width=0 is below 1"):
        corpus(width=0)
    with pytest.raises(ValueError, match="slots=15 is below 16"):
        corpus(slots=15)
    lanes = jnp.ones((3,), jnp.int32)
    context = Context(lanes[:, None], lanes, lanes, lanes.astype(jnp.uint32), lanes > 0)
    with pytest.raises(ValueError, match="slots=40 is below 16 for each of 3 lanes"):
        corpus(slots=40).init((), context)


def test_equal_settings_are_equal_drafters() -> None:
    assert corpus(4) == corpus(width=4) and hash(corpus(4)) == hash(corpus(4)) and corpus(4) != corpus(5)
