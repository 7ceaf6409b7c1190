"""A Hugging Face `config.json` from a `ModelConfig`: the way back of `from_huggingface`."""

from typing import Any

from jaxspec.models.config import ModelConfig
from jaxspec.models.from_huggingface import OUTPUTS, config_from_huggingface

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
}
KINDS = {"gemma3": "gemma3_text"}
ACTIVATIONS = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh"}


def config_to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """The fields by which other libraries, and `config_from_huggingface`, know a model.

    Raises:
      ValueError: the family is not published in this form, or cannot express a field of the config.
    """
    if config.family not in ARCHITECTURES:
        raise ValueError(f"family={config.family!r} has no Hugging Face form; it must be of {', '.join(ARCHITECTURES)}")
    gemma, qwen = config.family == "gemma3", config.family in ("qwen2", "qwen3")
    published: dict[str, Any] = {
        "architectures": [ARCHITECTURES[config.family]],
        "model_type": KINDS.get(config.family, config.family),
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.query_heads,
        "num_key_value_heads": config.key_heads,
        "head_dim": config.head_width,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied,
        "rope_theta": config.rope_theta,
    }
    if config.outputs is not None:
        published[OUTPUTS] = config.outputs
    activation = ACTIVATIONS[config.activation]
    published["hidden_activation" if gemma else "hidden_act"] = activation
    if config.family in ("llama", "qwen3", "gemma3"):
        published["attention_bias"] = config.output_bias
    if config.family == "llama":
        published["mlp_bias"] = config.mlp_bias
    if config.rope_scaling is not None:
        scaling = config.rope_scaling
        published["rope_scaling"] = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            published["rope_scaling"] |= {
                "low_freq_factor": scaling.low_frequency_factor,
                "high_freq_factor": scaling.high_frequency_factor,
                "original_max_position_embeddings": scaling.original_context,
            }
    if gemma:
        published["rope_local_base_freq"] = config.local_rope_theta
        published["query_pre_attn_scalar"] = round((config.query_scale or config.head_width**-0.5) ** -2)
        published["final_logit_softcapping"] = config.final_softcap
    if any(config.sliding) or config.family == "mistral":
        published["sliding_window"] = config.window
    if any(config.sliding) and config.family != "mistral":
        published["layer_types"] = ["sliding_attention" if slides else "full_attention" for slides in config.sliding]
        if qwen:
            published["use_sliding_window"] = True
    elif gemma:
        published["layer_types"] = ["full_attention"] * config.layers
    if config_from_huggingface(published) != config:
        raise ValueError(f"a {config.family} config in Hugging Face's form cannot express all of {config}")
    return published
