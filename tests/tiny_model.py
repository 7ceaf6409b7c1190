"""A Hugging Face folder small enough to build in every test run: random weights, a byte-level tokenizer.

Greedy text of such a model repeats itself now and then, so that a drafter that looks into the context has
drafts accepted as well as rejected.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = (
    "the cat sat on the mat and the dog sat on the log",
    "def add(a, b):\n    return a + b\n",
    "one two three four five six seven eight nine ten",
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "dtype": "float32",
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def build_tokenizer() -> Tokenizer:
    """Byte-level BPE over all 256 bytes, a few merges and three special tokens: any string can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def build_weights(vocabulary: int, seed: int) -> dict[str, np.ndarray]:
    """Tensors under their published Llama names, every projection (out, in)."""
    random = np.random.default_rng(seed)

    def projection(rows: int, columns: int) -> np.ndarray:
        return random.normal(scale=columns**-0.5, size=(rows, columns)).astype(np.float32)

    width, mlp_width, head_width = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["head_dim"]
    queries, keys = CONFIG["num_attention_heads"] * head_width, CONFIG["num_key_value_heads"] * head_width
    weights = {
        "model.embed_tokens.weight": random.normal(size=(vocabulary, width)).astype(np.float32),
        "model.norm.weight": np.ones(width, np.float32),
        "lm_head.weight": projection(vocabulary, width),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        weights |= {
            f"{name}.input_layernorm.weight": np.ones(width, np.float32),
            f"{name}.post_attention_layernorm.weight": np.ones(width, np.float32),
            f"{name}.self_attn.q_proj.weight": projection(queries, width),
            f"{name}.self_attn.k_proj.weight": projection(keys, width),
            f"{name}.self_attn.v_proj.weight": projection(keys, width),
            f"{name}.self_attn.o_proj.weight": projection(width, queries),
            f"{name}.mlp.gate_proj.weight": projection(mlp_width, width),
            f"{name}.mlp.up_proj.weight": projection(mlp_width, width),
            f"{name}.mlp.down_proj.weight": projection(width, mlp_width),
        }
    return weights


def write_folder(folder: Path, seed: int = 0) -> Path:
    """Writes config, weights, tokenizer and chat template as published checkpoints do; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    vocabulary = tokenizer.get_vocab_size()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(build_weights(vocabulary, seed), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": vocabulary}, indent=2))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[0],
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2))
    return folder
