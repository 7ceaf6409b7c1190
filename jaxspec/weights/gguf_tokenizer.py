"""The tokenizer that GGUF metadata describes: byte-level BPE (`gpt2`) or sentencepiece BPE (`llama`)."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from jaxspec.weights.tokenizer import Tokenizer, begin_with

PREFIX = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5  # token types of the format
SPACE = "\u2581"  # what sentencepiece writes for a space


class Splitting(NamedTuple):
    """How a byte-level vocabulary cuts a text before its merges.

    Attributes:
      pattern: a regular expression whose matches are the words; None for GPT-2's.
      single_digits: every digit is a word of its own, before anything else.
      whole_words: a word in the vocabulary is one token, whatever the merges say.
      compose: the text is brought into Unicode's composed form first.
      bos: files that do not say so want a text to begin with BOS.
    """

    pattern: str | None = None
    single_digits: bool = False
    whole_words: bool = False
    compose: bool = False
    bos: bool = False


_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = Splitting(_WORDS % "{1,3}", whole_words=True, bos=True)
SPLITTINGS = {
    "gpt-2": Splitting(),
    "smollm": Splitting(single_digits=True),
    "qwen2": Splitting(_WORDS % "", compose=True),
    "deepseek-r1-qwen": Splitting(_WORDS % "", bos=True),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "tekken": Splitting(_CASED, whole_words=True, bos=True),
}


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that GGUF metadata describes.

    Raises:
      ValueError: the metadata describes none, or one of a kind that is not supported.
    """
    fields = {name.removeprefix(PREFIX): value for name, value in metadata.items() if name.startswith(PREFIX)}
    if "model" not in fields or "tokens" not in fields:
        raise ValueError(f"the GGUF file has no tokenizer: {PREFIX}model or {PREFIX}tokens is missing")
    kind, tokens = fields["model"], list(fields["tokens"])
    types = list(fields.get("token_type", [NORMAL] * len(tokens)))
    if len(types) != len(tokens):
        raise ValueError(f"{PREFIX}token_type has {len(types)} entries for {len(tokens)} tokens")
    if kind == "gpt2":
        backend, bos_by_default = _byte_level(tokens, types, fields)
    elif kind == "llama":
        backend, bos_by_default = _sentencepiece(tokens, types, fields), True
    else:
        raise ValueError(f"{PREFIX}model={kind!r} is not supported; supported: gpt2, llama")
    _add_whole_tokens(backend, tokens, types)
    bos, eos, turn_end = (_id(fields, name) for name in ("bos_token_id", "eos_token_id", "eot_token_id"))
    begin_with(backend, bos if fields.get("add_bos_token", bos_by_default) else None)
    return Tokenizer(
        backend,
        bos_id=bos,
        eos_id=eos,
        more_eos_ids=() if turn_end is None else (turn_end,),
        chat_template=metadata.get("tokenizer.chat_template"),
    )


def _id(fields: Mapping[str, Any], name: str) -> int | None:
    return int(fields[name]) if name in fields else None


def _vocabulary(tokens: Sequence[str], types: Sequence[int]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens) if types[index] != UNUSED}


def _byte_level(
    tokens: Sequence[str], types: Sequence[int], fields: Mapping[str, Any]
) -> tuple[tokenizers.Tokenizer, bool]:
    name = fields.get("pre", "missing")
    if name not in SPLITTINGS:
        raise ValueError(
            f"{PREFIX}pre={name!r} is not supported (supported: {', '.join(SPLITTINGS)}); "
            "load the model from its Hugging Face folder"
        )
    splitting = SPLITTINGS[name]
    merges = [tuple(merge.split(" ")) for merge in fields.get("merges", ())]
    backend = _build(_vocabulary(tokens, types), merges, ignore_merges=splitting.whole_words)
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if splitting.single_digits else []
    if splitting.pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(splitting.pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splitting.pattern is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    if splitting.compose:
        backend.normalizer = normalizers.NFC()
    return backend, splitting.bos


def _sentencepiece(tokens: Sequence[str], types: Sequence[int], fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
    vocabulary = _vocabulary(tokens, types)
    if "merges" in fields:
        merges = [tuple(merge.split(" ")) for merge in fields["merges"]]
    else:
        merges = _merges_by_score(vocabulary, types, fields.get("scores", [0.0] * len(tokens)))
    unknown = _id(fields, "unknown_token_id")
    backend = _build(
        vocabulary,
        merges,
        unk_token=None if unknown is None else tokens[unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    spaces, undo = [normalizers.Replace(" ", SPACE)], [decoders.Replace(SPACE, " ")]
    if fields.get("add_space_prefix", True):
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), *spaces])
        backend.decoder = decoders.Sequence(
            [*undo, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    else:
        backend.normalizer = spaces[0]
        backend.decoder = decoders.Sequence([*undo, decoders.ByteFallback(), decoders.Fuse()])
    return backend


def _build(vocabulary: dict[str, int], merges: list, **settings: Any) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, **settings))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{PREFIX}merges do not fit {PREFIX}tokens: {error}") from None


def _merges_by_score(
    vocabulary: Mapping[str, int], types: Sequence[int], scores: Sequence[float]
) -> list[tuple[str, str]]:
    """Every way to make a token of two others, in the order sentencepiece would: by falling score."""
    ranked = []
    for token, index in vocabulary.items():
        if types[index] != NORMAL:
            continue
        rank = (-scores[index], index)
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                ranked.append((rank, vocabulary[left], vocabulary[right], left, right))
    ranked.sort(key=operator.itemgetter(0, 1, 2))
    return [(left, right) for *_, left, right in ranked]


def _add_whole_tokens(backend: tokenizers.Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Tokens that are found whole in a text, before any merge."""
    special = [token for token, kind in zip(tokens, types, strict=True) if kind in (UNKNOWN, CONTROL)]
    plain = [token for token, kind in zip(tokens, types, strict=True) if kind == USER_DEFINED]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    backend.add_tokens([AddedToken(token, normalized=False) for token in plain])
