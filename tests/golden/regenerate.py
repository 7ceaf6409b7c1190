"""Makes small random Hugging Face models and records what they say: `python tests/golden/regenerate.py`.

Needs PyTorch (the `parity` extra). Every case becomes one `.npz` with the published config, the weights under their
published names, prompts and float32 logits. Weights are rounded to float16 and stored as such, so that files stay small
and both sides compute from the same numbers.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDER = Path(__file__).parent
SHARED = dict(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    attention_dropout=0.0,
)
PROMPT = 40  # tokens; longer than every window


class Case(NamedTuple):
    """One published architecture: a config class of transformers, its model class, and settings beyond `SHARED`."""

    config: str
    model: str
    settings: dict[str, Any]


LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=500.0,
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
GEMMA = dict(
    num_hidden_layers=3,
    head_dim=16,
    sliding_window=6,
    query_pre_attn_scalar=20,
    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
)
CASES = {
    "llama_grouped": Case("LlamaConfig", "LlamaForCausalLM", dict(tie_word_embeddings=False)),
    "llama_tied": Case("LlamaConfig", "LlamaForCausalLM", dict(tie_word_embeddings=True, rms_norm_eps=1e-5)),
    "llama_biases": Case("LlamaConfig", "LlamaForCausalLM", dict(attention_bias=True, mlp_bias=True)),
    "llama_scaled": Case("LlamaConfig", "LlamaForCausalLM", dict(rope_parameters=LLAMA3)),
    "llama_linear": Case(
        "LlamaConfig",
        "LlamaForCausalLM",
        dict(rope_parameters=dict(rope_type="linear", rope_theta=100.0, factor=3.0)),
    ),
    "mistral_window": Case("MistralConfig", "MistralForCausalLM", dict(sliding_window=7, head_dim=12)),
    "qwen2_tied": Case("Qwen2Config", "Qwen2ForCausalLM", dict(tie_word_embeddings=True, num_key_value_heads=1)),
    "qwen2_window": Case(
        "Qwen2Config",
        "Qwen2ForCausalLM",
        dict(use_sliding_window=True, sliding_window=9, max_window_layers=1),
    ),
    "qwen3_wide_heads": Case("Qwen3Config", "Qwen3ForCausalLM", dict(head_dim=20)),
    "gemma3_local_and_global": Case("Gemma3TextConfig", "Gemma3ForCausalLM", GEMMA),
    "gemma3_scaled": Case(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        GEMMA
        | dict(
            rope_parameters=dict(
                full_attention=dict(rope_type="linear", rope_theta=1000.0, factor=8.0),
                sliding_attention=dict(rope_type="default", rope_theta=100.0),
            )
        ),
    ),
}
SEEDS = (0, 1)


def make(name: str, seed: int) -> dict[str, np.ndarray]:
    """The arrays of one case, computed by Hugging Face transformers in float32."""
    import torch
    import transformers

    case = CASES[name]
    torch.manual_seed(seed)
    config = getattr(transformers, case.config)(**(SHARED | case.settings), attn_implementation="eager")
    model = getattr(transformers, case.model)(config).float().eval()
    arrays: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for parameter, value in model.named_parameters():
            # Random norms and biases too: ones and zeros would hide a missing one.
            spread = 0.3 if value.ndim == 1 else value.shape[-1] ** -0.5
            noise = torch.randn_like(value) * spread
            centre = 1.0 if parameter.endswith("norm.weight") and "gemma" not in name else 0.0
            value.copy_((centre + noise).half().float())
            arrays[f"weight/{parameter}"] = value.numpy().astype(np.float16)
        prompts = torch.from_numpy(np.random.default_rng(seed).integers(0, config.vocab_size, (2, PROMPT)))
        logits = model(prompts).logits.float().numpy()
    arrays["config"] = np.array(json.dumps(config.to_dict()))
    arrays["prompts"] = prompts.numpy().astype(np.int32)
    arrays["logits"] = logits
    return arrays


def main() -> None:
    for name in CASES:
        for seed in SEEDS:
            path = FOLDER / f"{name}_{seed}.npz"
            np.savez_compressed(path, **make(name, seed))
            print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
