"""Speed of the bare loop, as ratios within one run.

    python benchmarks/decode.py --config configs/decode.yaml [--model PATH] [--results results]

Times one target pass: plain, at wider blocks, with more lanes, with a larger cache; beside the bare chain of the same
weight multiplications, and Hugging Face `generate` on the same weights where PyTorch is installed.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from huggingface import huggingface_model

import jaxspec
from jaxspec import drafters
from jaxspec.decode.loop import run_slice
from jaxspec.engine.job import build_job
from jaxspec.engine.request import Request
from jaxspec.engine.serve import queue_up
from jaxspec.evaluate.config import read_config
from jaxspec.evaluate.report import write_report
from jaxspec.evaluate.timing import interleaved
from jaxspec.models.transformer import matmul


@dataclasses.dataclass(frozen=True)
class DecodeBenchmark:
    """Settings of this benchmark; see configs/decode.yaml."""

    model: str
    dtypes: tuple[str, ...]
    cache: int
    used: int
    ticks: int
    rounds: int
    huggingface: bool


def loop_variant(
    lm: jaxspec.LanguageModel,
    config: DecodeBenchmark,
    *,
    lanes: int = 1,
    width: int = 1,
    cache: int | None = None,
) -> Callable[[], None]:
    """A function that runs `config.ticks` passes of `lanes` lanes in blocks of `width`, the prompt read before."""
    ids = np.random.default_rng(0).integers(0, lm.config.vocabulary, config.used)
    request = Request(tuple(int(i) for i in ids), 10**6)
    job = build_job(
        lm,
        [request],
        drafters.autoregressive(padding=width - 1),
        lanes=lanes,
        cache=cache or config.cache,
        ignore_eos=True,
    )
    prefill = lanes * -(-(config.used - 1) // job.shape.prefill_width)
    state = queue_up(job.init_state(), [request] * lanes)
    state = run_slice(job.program, job.inputs._replace(max_ticks=jnp.int32(prefill)), state)
    inputs = job.inputs._replace(max_ticks=jnp.int32(config.ticks))
    start = jax.tree.map(jnp.copy, (state.requests, state.cache.length))
    held = [state]

    def run() -> None:
        # Rewinding is a change of lengths, so every run does the same work on the same cache.
        requests, length = jax.tree.map(jnp.copy, start)
        state = held.pop()
        state = state._replace(requests=requests, cache=state.cache._replace(length=length))
        held.append(jax.block_until_ready(run_slice(job.program, inputs, state)))

    return run


def chain_variant(lm: jaxspec.LanguageModel, config: DecodeBenchmark, rows: int = 1) -> Callable[[], None]:
    """The same weight multiplications in the same order, of so many rows, and nothing else."""
    model = lm.config
    head_key = "embedding" if model.tied else "head"

    @jax.jit
    def chain(params, x):
        def step(_, carry):
            x, best = carry
            for index in range(model.layers):
                layer = params[f"layer_{index}"]
                qkv = matmul(x, layer["attention"]["qkv"]["kernel"]).astype(x.dtype)
                mixed = qkv[:, : model.query_heads * model.head_width]
                x = matmul(mixed, layer["attention"]["output"]["kernel"]).astype(x.dtype)
                hidden = matmul(x, layer["mlp"]["gate_up"]["kernel"]).astype(x.dtype)[:, : model.mlp_width]
                x = matmul(hidden, layer["mlp"]["down"]["kernel"]).astype(x.dtype)
            return x, best + jnp.max(matmul(x, params[head_key]["kernel"]))

        return jax.lax.fori_loop(0, config.ticks, step, (x, jnp.float32(0)))

    x = jnp.ones((rows, model.width), lm.dtype)
    return lambda: jax.block_until_ready(chain(lm.params, x))


def huggingface_variant(lm: jaxspec.LanguageModel, config: DecodeBenchmark) -> Callable[[], None] | None:
    """`generate` of Hugging Face transformers on the same weights, `config.ticks` tokens after the same prompt."""
    theirs = huggingface_model(lm)
    if theirs is None:
        return None
    import torch

    ids = torch.from_numpy(np.random.default_rng(0).integers(0, lm.config.vocabulary, (1, config.used)))
    with torch.inference_mode():
        past = theirs(ids[:, :-1], use_cache=True).past_key_values
    held = config.used - 1

    def run() -> None:
        # The prompt but its last token is cached, so that only decoding is timed.
        if past.get_seq_length() > held:
            past.crop(held - past.get_seq_length())
        theirs.generate(
            ids, past_key_values=past, max_new_tokens=config.ticks, min_new_tokens=config.ticks, do_sample=False,
            pad_token_id=0, eos_token_id=None,
        )  # fmt: skip

    return run


def measure(lm: jaxspec.LanguageModel, dtype: str, config: DecodeBenchmark) -> list[dict]:
    """One row a variant, each with its ratio to plain decoding."""
    variants = {
        "bare chain of multiplications": chain_variant(lm, config),
        "bare chain, 2 rows": chain_variant(lm, config, 2),
        "bare chain, 8 rows": chain_variant(lm, config, 8),
        "plain, 1 lane": loop_variant(lm, config),
        "block of 2": loop_variant(lm, config, width=2),
        "block of 4": loop_variant(lm, config, width=4),
        "block of 8": loop_variant(lm, config, width=8),
        "block of 16": loop_variant(lm, config, width=16),
        "block of 32": loop_variant(lm, config, width=32),
        "plain, 4 lanes": loop_variant(lm, config, lanes=4),
        "plain, 8 lanes": loop_variant(lm, config, lanes=8),
        "plain, 1 lane, twice the cache": loop_variant(lm, config, cache=2 * config.cache),
        "plain, 8 lanes, twice the cache": loop_variant(lm, config, lanes=8, cache=2 * config.cache),
    }
    theirs = huggingface_variant(lm, config) if config.huggingface else None
    if theirs is not None:
        variants["Hugging Face generate, 1 lane"] = theirs
    timings = interleaved(variants, rounds=config.rounds)
    plain = timings["plain, 1 lane"].median
    return [
        {
            "dtype": dtype,
            "variant": name,
            "time / plain": timing.median / plain,
            "spread": timing.spread,
            "ms a pass": 1000 * timing.median / config.ticks,
        }
        for name, timing in timings.items()
    ]


def plot(rows: list[dict], path: Path) -> None:
    """Time of a pass over time of a plain one, by block width and type."""
    figure, axes = plt.subplots(figsize=(5, 3.2), constrained_layout=True)
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        mine = [row for row in rows if row["dtype"] == dtype]
        points = {1: 1.0} | {
            int(row["variant"].split()[-1]): row["time / plain"]
            for row in mine
            if row["variant"].startswith("block of")
        }
        axes.plot(list(points), list(points.values()), "o-", label=dtype)
    axes.set(xlabel="nodes a block", ylabel="time of a pass / plain", xscale="log", ylim=(0, None))
    axes.set_xticks(list(points), [str(width) for width in points])
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/decode.yaml")
    parser.add_argument("--model", help="overrides the config's")
    parser.add_argument("--results", default="results", type=Path)
    arguments = parser.parse_args()
    config = read_config(arguments.config, DecodeBenchmark)
    if arguments.model:
        config = dataclasses.replace(config, model=arguments.model)
    rows = []
    for dtype in config.dtypes:
        rows += measure(jaxspec.load(config.model, dtype=dtype), dtype, config)
    path = write_report(
        arguments.results, "decode", rows, dataclasses.asdict(config) | {"model": Path(config.model).stem}
    )
    plot(rows, arguments.results / "decode.png")
    print(path.read_text())


if __name__ == "__main__":
    main()
