"""The synthetic task: what it says is right SQL over its schema, and its vocabulary is enough for it."""

import re

import pytest

from jaxspec.tasks.sql_vocabulary import EOS, UNKNOWN, tokenizer
from jaxspec.tasks.task import find_task
from jaxspec.tasks.text_to_sql import LONGEST, SHORTEST_ANSWER, Example, example, grade
from jaxspec.weights.folder_tokenizer import tokenizer_from_folder

COUNT = 400
OPERATORS = {"above": ">", "over": ">", "below": "<", "under": "<", "at least": ">=", "at most": "<=", "is": "="}
FUNCTIONS = {"average": "AVG", "largest": "MAX", "smallest": "MIN", "combined": "SUM"}


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [example(3, index) for index in range(COUNT)]


def schema_of(prompt: str) -> dict[str, list[str]]:
    line = prompt.split("\n")[0].removeprefix("tables: ")
    return {table: columns for table, *columns in (part.split(" ") for part in line.split(" | "))}


def solve(prompt: str) -> str:
    """The answer by a reader of the question that shares nothing with its writer."""
    schema = schema_of(prompt)
    question = prompt.split("\n")[1].removeprefix("question: ")
    owner = {column: table for table, columns in schema.items() for column in columns if not column.startswith("id")}
    names = sorted(owner, key=len, reverse=True)
    name = "|".join(map(re.escape, names))
    used = []

    def sql(words: str) -> str:
        used.append(owner[words])
        return words

    limit = re.search(r"in (\d+) rows", question)
    question = re.sub(r" ?in \d+ rows ?", "", question)
    order = re.search(rf" ?(?:sorted|ordered) by ({name}) (descending|ascending)", question)
    question = question.replace(order[0], "") if order else question
    asked, where = re.split(r"(?<! joined) (?:with|where) (?!')", question, maxsplit=1)
    main = re.search(r" of (\w+)", asked)[1]
    group = re.search(rf"for each ({name}) | per ({name})$", asked)
    verb = r"(?:show|list|give|find) the "
    if group:
        by = group[1] or group[2]
        aggregate = re.search(rf"{verb}(\w+) ({name}) of ", asked)
        selected = sql(by) + " , "
        selected += f"{FUNCTIONS[aggregate[1]]} ( {sql(aggregate[2])} )" if aggregate else "COUNT ( * )"
    else:
        selected = " , ".join(sql(words) for words in re.split(" , | and ", re.search(f"{verb}(.*?) of ", asked)[1]))
    condition = (
        rf"({name}) (?:between (\d+) and (\d+)|({'|'.join(OPERATORS)}) (\d+)"
        r"|(is not|is|starts with|contains) '(\w+)')(?: (and|or) )?"
    )
    conditions = ""
    for column, low, high, words, number, test, text, joint in re.findall(condition, where):
        if low:
            conditions += f"{sql(column)} BETWEEN {low} AND {high}"
        elif words:
            conditions += f"{sql(column)} {OPERATORS[words]} {number}"
        else:
            form = {"is": "= '{}'", "is not": "!= '{}'", "starts with": "LIKE '{}%'", "contains": "LIKE '%{}%'"}[test]
            conditions += f"{sql(column)} {form.format(text)}"
        conditions += f" {joint.upper()} " if joint else ""
    tail = f" GROUP BY {sql(by)}" if group else ""
    if order:
        tail += f" ORDER BY {sql(order[1])} {'DESC' if order[2] == 'descending' else 'ASC'}"
    tail += f" LIMIT {limit[1]}" if limit else ""
    others = set(used) - {main}
    join = ""
    named = re.search(r" joined with (\w+)", asked)
    assert {named[1]} == others if named else not others
    if others:
        (other,) = others
        refers, referred = (main, other) if f"id_{other}" in schema[main] else (other, main)
        assert f"id_{referred}" in schema[refers]
        join = f" JOIN {other} ON {refers} . id_{referred} = {referred} . id"
    return f"SELECT {selected} FROM {main}{join} WHERE {conditions}{tail}"


def test_answers_follow_from_their_prompts(examples: list[Example]) -> None:
    for prompt, answer in examples:
        assert answer == " " + solve(prompt)


def test_columns_belong_to_one_table_each(examples: list[Example]) -> None:
    for prompt, _ in examples:
        columns = [
            column for columns in schema_of(prompt).values() for column in columns if not column.startswith("id")
        ]
        assert len(columns) == len(set(columns))


def test_there_is_something_to_decide(examples: list[Example]) -> None:
    def share(text: str) -> float:
        return sum(text in answer for _, answer in examples) / COUNT

    for text in (" JOIN ", " GROUP BY ", " ORDER BY ", " LIMIT ", " BETWEEN ", " LIKE ", " OR "):
        assert 0.05 < share(text) < 0.8, text
    assert len({answer for _, answer in examples}) == COUNT


def test_examples_are_functions_of_seed_index_and_split() -> None:
    assert example(1, 5) == example(1, 5)
    drawn = {example(seed, index, split) for seed in (0, 1) for index in range(150) for split in ("train", "held_out")}
    assert len(drawn) == 600
    assert example(0, 0) == Example(  # a change of the generator would be a change of all data sets
        "tables: doctor id id_student status new_size local_owner age | student id id_product stock city weight "
        "| product id new_kind daily_distance name daily_score\n"
        "question: show the combined new_size of doctor per local_owner where age at most 3 and new_size is 336 "
        "and age over 724\nsql:",
        " SELECT local_owner , SUM ( new_size ) FROM doctor WHERE age <= 3 AND new_size = 336 AND age > 724 "
        "GROUP BY local_owner",
    )


def test_lengths_are_as_promised(examples: list[Example]) -> None:
    for prompt, answer in examples:
        prompt_ids, answer_ids = tokenizer().encode(prompt), tokenizer().encode(answer)
        assert len(answer_ids) >= SHORTEST_ANSWER
        assert len(prompt_ids) + len(answer_ids) + 1 <= LONGEST


def test_the_vocabulary_is_small_and_enough(examples: list[Example]) -> None:
    words = tokenizer()
    assert words.vocabulary_size <= 256
    pieces = words.token_bytes()
    for prompt, answer in examples:
        ids = words.encode(prompt) + words.encode(answer)
        assert ids == words.encode(prompt + answer)
        assert words.decode(ids) == prompt + answer
        assert b"".join(pieces[i] for i in ids).decode() == prompt + answer


def test_words_are_one_id_and_others_letters() -> None:
    words = tokenizer()
    pieces = words.token_bytes()

    def split(text: str) -> list[bytes]:
        return [pieces[i] for i in words.encode(text)]

    assert split(" singer . home_city") == [b" singer", b" .", b" home", b"_city"]
    assert split(" = 'zork'") == [b" =", b" '", b"z", b"o", b"r", b"k", b"'"]
    assert split(" >= 407") == [b" >=", b" 4", b"0", b"7"]
    assert words.decode(words.encode("A")) == "" and len(words.encode("A")) == 1  # unknown
    assert words.eos_ids == (words.encode(EOS)[0],) and words.encode(UNKNOWN) == words.encode("A")


def test_the_tokenizer_survives_a_folder(tmp_path, examples: list[Example]) -> None:
    tokenizer().save(tmp_path)
    read = tokenizer_from_folder(tmp_path)
    assert read.eos_ids == tokenizer().eos_ids and read.vocabulary_size == tokenizer().vocabulary_size
    for prompt, answer in examples[:20]:
        assert read.encode(prompt + answer) == tokenizer().encode(prompt + answer)


def test_grading_ignores_space_around() -> None:
    assert grade(" SELECT a", "SELECT a\n")
    assert not grade(" SELECT a", " SELECT a.b")
    with pytest.raises(ValueError, match="task='sql' is not known; known: .*text_to_sql"):
        find_task("sql")
