"""What drafting itself costs, beside a plain pass of the target and the pass its draft needs, at the same context.

    python benchmarks/drafter_cost.py --config configs/drafter_cost.yaml [--model PATH] [--results results]

Times `propose` and `observe`, and the search for the target's best tokens that a drafter asks to see, with verdicts
made up: two drafted tokens accepted a step, on a text that repeats itself.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from decode import DecodeBenchmark, loop_variant

import jaxspec
from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.binding import Binding, bind, of_target
from jaxspec.decode.sampling import SamplingFlags, plain_sampling, top_ids
from jaxspec.decode.types import Context, Drafter, Verdict
from jaxspec.drafters.spec import parse_drafter
from jaxspec.evaluate.config import read_config
from jaxspec.evaluate.report import write_report
from jaxspec.evaluate.timing import interleaved

PERIOD = 150  # tokens after which the text repeats itself


@dataclasses.dataclass(frozen=True)
class DrafterCostBenchmark:
    """Settings of this benchmark; see configs/drafter_cost.yaml."""

    model: str
    dtype: str
    context: int
    ticks: int
    rounds: int
    drafters: tuple[str, ...]


def drafting(lm: jaxspec.LanguageModel, drafter: Drafter, config: DrafterCostBenchmark) -> Callable[[], None]:
    """A function that drafts and learns `config.ticks` times, up to a text of `config.context` tokens."""
    vocabulary = lm.config.vocabulary
    drafter = of_target(drafter, lm)
    params: Any = drafter.prepare(lm)
    drafter = bind(drafter, Binding(vocabulary, SamplingFlags(), Drawing.BEST, 64))
    random = np.random.default_rng(0)
    size = config.context + drafter.depth + 1
    context = Context(
        tokens=jnp.asarray(np.resize(random.integers(0, vocabulary, PERIOD), size)[None], jnp.int32),
        length=jnp.full((1,), config.context - 3 * config.ticks, jnp.int32),
        prompt_length=jnp.full((1,), config.context // 2, jnp.int32),
        seed=jnp.zeros((1,), jnp.uint32),
        live=jnp.ones((1,), bool),
        sampling=plain_sampling(1),
        banned=jnp.zeros((vocabulary,), bool),
        step_seconds=jnp.ones((len(drafter.widths),), jnp.float32),
    )
    nodes, depth = drafter.nodes + 1, drafter.depth + 1
    logits = jnp.asarray(random.normal(size=(1, nodes, vocabulary)), jnp.float32)
    chosen = jnp.asarray(random.integers(0, vocabulary, (1, nodes)), jnp.int32)
    path = jnp.minimum(jnp.arange(depth, dtype=jnp.int32), 2)[None]
    path = jnp.where(jnp.arange(depth) <= 2, path, 0)

    def tick(_: jax.Array, carry: tuple[Any, Context, jax.Array]) -> tuple[Any, Context, jax.Array]:
        state, context, used = carry
        draft, state = drafter.propose(params, state, context)
        place = context.length[:, None] + jnp.arange(depth, dtype=jnp.int32)
        ids = jnp.take_along_axis(context.tokens, jnp.minimum(place, size - 1), axis=1)
        # Logits that depend on the step, or the search would be done once for all.
        top = top_ids(logits + context.length.astype(jnp.float32) * 1e-9, drafter.top)
        verdict = Verdict(jnp.minimum(2, drafter.depth)[None], path, ids, chosen, top)
        state = drafter.observe(params, state, context, draft, verdict)
        # What nobody uses is not computed.
        used += sum(jnp.sum(jnp.asarray(leaf, jnp.float32)) for leaf in (draft.ids, draft.parent, draft.valid))
        if draft.gain is not None:
            used += jnp.sum(draft.gain)
        return state, context._replace(length=context.length + 3), used

    @jax.jit
    def run(state: Any, context: Context) -> Any:
        state, _, used = jax.lax.fori_loop(0, config.ticks, tick, (state, context, jnp.float32(0)))
        return state, used

    state = drafter.admit(params, drafter.init(params, context), context, jnp.ones((1,), bool))
    return lambda: jax.block_until_ready(run(state, context))


def _pass_of(drafter: Drafter) -> str:
    return f"pass over {drafter.nodes} draft nodes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/drafter_cost.yaml")
    parser.add_argument("--model", help="overrides the config's")
    parser.add_argument("--results", default="results", type=Path)
    arguments = parser.parse_args()
    config = read_config(arguments.config, DrafterCostBenchmark)
    if arguments.model:
        config = dataclasses.replace(config, model=arguments.model)
    lm = jaxspec.load(config.model, dtype=config.dtype)
    used = config.context - config.ticks
    plain = DecodeBenchmark(config.model, (config.dtype,), 2 * used, used, config.ticks, config.rounds, False)
    drafters = {text: parse_drafter(text) for text in config.drafters}
    variants = {"plain": loop_variant(lm, plain)}
    for text, drafter in drafters.items():
        variants[text] = drafting(lm, drafter, config)
        variants[_pass_of(drafter)] = loop_variant(lm, plain, width=drafter.nodes + 1)
    timings = interleaved(variants, rounds=config.rounds)
    rows = [
        {
            "drafter": text,
            "draft nodes": drafter.nodes,
            "drafting / plain pass": timings[text].median / timings["plain"].median,
            "drafting / pass over the draft": timings[text].median / timings[_pass_of(drafter)].median,
            "spread": timings[text].spread,
        }
        for text, drafter in drafters.items()
    ]
    path = write_report(
        arguments.results, "drafter_cost", rows, dataclasses.asdict(config) | {"model": Path(config.model).stem}
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
