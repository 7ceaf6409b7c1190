"""Hugging Face transformers on a loaded model's own weights, for comparison in the same run."""

import importlib.util
import os
import time
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxspec
from jaxspec.evaluate.bench import PeerRun
from jaxspec.weights.parameters import entries

FAMILIES = ("llama", "qwen2")


def huggingface_model(lm: jaxspec.LanguageModel) -> Any | None:
    """The same network in PyTorch, on all cores; None without PyTorch, or for a model this does not build."""
    if importlib.util.find_spec("torch") is None or lm.config.family not in FAMILIES or lm.dtype != jnp.float32:
        return None
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    model = lm.config
    torch.set_num_threads(os.cpu_count() or 1)
    settings = dict(
        vocab_size=model.vocabulary, hidden_size=model.width, intermediate_size=model.mlp_width,
        num_hidden_layers=model.layers, num_attention_heads=model.query_heads, num_key_value_heads=model.key_heads,
        head_dim=model.head_width, max_position_embeddings=model.context, rms_norm_eps=model.norm_epsilon,
        rope_theta=model.rope_theta, tie_word_embeddings=model.tied,
    )  # fmt: skip
    if model.family == "llama":
        theirs = LlamaForCausalLM(LlamaConfig(**settings)).eval()
    else:
        theirs = Qwen2ForCausalLM(Qwen2Config(**settings)).eval()
    weights = {}
    for entry in entries(model):
        leaf = lm.params
        for part in entry.path:
            leaf = leaf[part]
        rows = np.split(np.asarray(leaf, np.float32).T, np.cumsum([shape[0] for shape in entry.shapes])[:-1])
        weights |= {name: torch.from_numpy(np.array(row)) for name, row in zip(entry.names, rows, strict=True)}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"weights do not fit: missing {missing}, unexpected {unexpected}")
    return theirs


class HuggingFacePeer:
    """`generate` as a peer of our own decoding, greedy; with `lookup`, its prompt lookup decoding."""

    def __init__(self, model: Any, eos_ids: Sequence[int], lookup: int = 0) -> None:
        self.model = model
        self.eos_ids = list(eos_ids)
        self.lookup = lookup

    def __call__(self, ids: Sequence[int], max_new_tokens: int) -> PeerRun:
        import torch

        clock = _Clock()
        extra = {"prompt_lookup_num_tokens": self.lookup} if self.lookup else {}
        with torch.inference_mode():
            out = self.model.generate(
                torch.tensor([list(ids)]), max_new_tokens=max_new_tokens, do_sample=False, streamer=clock,
                pad_token_id=0, eos_token_id=self.eos_ids or None, **extra,
            )  # fmt: skip
        return run_of(out[0, len(ids) :].tolist(), clock.times, clock.counts)


def run_of(ids: list[int], times: Sequence[float], counts: Sequence[int]) -> PeerRun:
    """A run whose passes ended at `times` and said `counts` tokens.

    The first pass reads the prompt too, and nobody knows what of its time its tokens took: the time of the others is
    scaled up to all tokens. Without others there is none.
    """
    later = sum(counts[1:])
    seconds = (times[-1] - times[0]) * len(ids) / later if later else 0.0
    return PeerRun(ids, len(counts), seconds)


class _Clock:
    """A streamer that notes when tokens come, and how many."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.counts: list[int] = []
        self.prompt_seen = False

    def put(self, value: Any) -> None:
        if not self.prompt_seen:
            self.prompt_seen = True
            return
        self.times.append(time.perf_counter())
        self.counts.append(value.numel())

    def end(self) -> None:
        """Called by `generate` after the last token."""
