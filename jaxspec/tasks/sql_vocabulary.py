"""The small vocabulary of `text_to_sql`: whole words for what the task says often, letters for everything else."""

import functools

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers

from jaxspec.weights.tokenizer import Tokenizer

TABLES = (
    "singer", "concert", "album", "student", "teacher", "course", "player", "team", "doctor", "patient",
    "hotel", "guest", "shop", "product", "museum", "artist", "driver", "car", "farm", "animal",
)  # fmt: skip
NUMBER_NOUNS = (
    "age", "price", "score", "weight", "height", "year", "level", "size", "salary", "points",
    "length", "speed", "volume", "rating", "budget", "stock", "capacity", "distance",
)  # fmt: skip
TEXT_NOUNS = ("name", "city", "color", "status", "kind", "title", "country", "region", "genre", "brand", "owner")
MODIFIERS = ("first", "last", "home", "main", "net", "base", "old", "new", "local", "daily")

QUESTION_WORDS = (
    "show list give find the of and or with where above over below under at least most is not starts contains "
    "between sorted ordered by descending ascending for each per in rows number average largest smallest combined "
    "joined"
).split()
SQL_WORDS = "SELECT FROM JOIN ON WHERE AND OR GROUP ORDER BY DESC ASC LIMIT BETWEEN LIKE COUNT AVG MAX MIN SUM".split()
SIGNS = (":", "\n", "'", "%")
SPACED_SIGNS = ("|", "'", "(", ")", ".", ",", "*", "=", "!=", "<", ">", "<=", ">=")
SPECIAL = PAD, EOS, UNKNOWN = ("<pad>", "<eos>", "<unk>")

SPACE = "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"  # what byte-level vocabularies write for a space
LINE = "\N{LATIN CAPITAL LETTER C WITH DOT ABOVE}"  # and for the end of a line
PIECES = Regex(r" ?[A-Za-z]+|_[a-z]+| ?[0-9]| ?[<>!]?=| ?[^A-Za-z0-9\s]|\s")


@functools.cache
def tokenizer() -> Tokenizer:
    """The tokenizer: words of the task are one id each, other words and numbers one id a character.

    A text's characters beyond lower-case letters, digits and the task's signs become `<unk>`.
    """
    pieces = models.BPE(
        {piece: index for index, piece in enumerate(_pieces())}, [], unk_token=UNKNOWN, ignore_merges=True
    )
    backend = tokenizers.Tokenizer(pieces)
    backend.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Split(PIECES, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    backend.add_special_tokens(list(SPECIAL))
    return Tokenizer(backend, eos_id=backend.token_to_id(EOS))


def _pieces() -> list[str]:
    """Every piece, in the order of its id."""
    nouns = (*NUMBER_NOUNS, *TEXT_NOUNS)
    pieces = [*SPECIAL, SPACE, *(sign.replace("\n", LINE) for sign in SIGNS)]
    pieces += [SPACE + sign for sign in SPACED_SIGNS]
    pieces += [chr(ord("a") + letter) for letter in range(26)]
    pieces += [str(digit) for digit in range(10)] + [f"{SPACE}{digit}" for digit in range(10)]
    pieces += ["tables", "question", "sql"]
    pieces += [SPACE + word for word in (*SQL_WORDS, *QUESTION_WORDS, *TABLES, *MODIFIERS, *nouns, "id")]
    pieces += [f"_{second}" for second in (*nouns, *TABLES)]
    return list(dict.fromkeys(pieces))
