"""A synthetic task: questions over generated schemas, answered in SQL.

Every example draws its own schema (two or three linked tables whose columns are one or two words) and a question
about it. The answer is a function of the prompt alone, but not a copy of it: a question never says on which keys tables
are joined, which the schema does; limits, groups and orders may be asked for first and are answered last; and many
words mean one operator. Literals (words of random letters, numbers) are copied letter by
letter. SQL is written with spaces between its words and signs, so that a name is the same tokens in a schema, a
question and an answer. An example is a pure function of (seed, split, index): data needs no storage, and splits never
meet.
"""

import random
from typing import Literal, NamedTuple

from jaxspec.tasks.sql_vocabulary import MODIFIERS, NUMBER_NOUNS, TABLES, TEXT_NOUNS, tokenizer

Split = Literal["train", "held_out"]

VERBS = ("show", "list", "give", "find")
COMPARISONS = (
    ("above", ">"),
    ("over", ">"),
    ("below", "<"),
    ("under", "<"),
    ("at least", ">="),
    ("at most", "<="),
    ("is", "="),
)
AGGREGATES = (("average", "AVG"), ("largest", "MAX"), ("smallest", "MIN"), ("combined", "SUM"))
OF_WHAT = "{tables}"  # in a question whose tables are not known yet
LETTERS = "abcdefghijklmnopqrstuvwxyz"

SHORTEST_ANSWER = 24  # tokens, without the end
LONGEST = 144  # tokens of prompt, answer and end


class Example(NamedTuple):
    """Attributes:
    prompt: schema and question, up to where the answer begins.
    answer: the SQL, with the space that separates it from the prompt.
    """

    prompt: str
    answer: str


class Column(NamedTuple):
    """Attributes:
    name: of one or two words.
    table: that it belongs to.
    is_number: compared as a number, or as text.
    """

    name: str
    table: str
    is_number: bool


class Schema(NamedTuple):
    """Attributes:
    columns: of every table, by its name, keys left out.
    links: (table that refers, table referred to): the first has a column `id_<second>`.
    """

    columns: dict[str, tuple[Column, ...]]
    links: tuple[tuple[str, str], ...]


def example(seed: int, index: int, split: Split = "train") -> Example:
    """Example number `index` of a split.

    Args:
      seed: of the whole data set.
      index: 0 or more, without end.
      split: what is drawn for one split is never drawn for the other, other than by chance; with some 10^20
        questions there is none.
    """
    draw = random.Random(f"text to sql {seed} {split} {index}")
    while True:  # about one in ten is too short or too long
        schema = _schema(draw)
        question, answer = _question(draw, schema)
        drawn = Example(f"tables: {_describe(schema)}\nquestion: {question}\nsql:", f" {answer}")
        prompt_ids, answer_ids = map(tokenizer().encode, drawn)
        if len(answer_ids) >= SHORTEST_ANSWER and len(prompt_ids) + len(answer_ids) < LONGEST:
            return drawn


def grade(answer: str, text: str) -> bool:
    """Whether a model's `text` is the expected `answer`, space around it aside."""
    return text.strip() == answer.strip()


def _schema(draw: random.Random) -> Schema:
    """A centre table, and one or two tables linked with it in either direction."""
    tables = draw.sample(TABLES, draw.choice((2, 2, 3)))
    numbers = iter(_names(draw, NUMBER_NOUNS, 9))
    texts = iter(_names(draw, TEXT_NOUNS, 9))
    columns = {}
    for table in tables:
        # One number and one text at least, so that every kind of question can be asked of every table.
        kinds = [True, False] + [draw.random() < 0.5 for _ in range(draw.choice((0, 1, 2)))]
        draw.shuffle(kinds)
        columns[table] = tuple(Column(next(numbers if kind else texts), table, kind) for kind in kinds)
    links = [(tables[0], other) if draw.random() < 0.5 else (other, tables[0]) for other in tables[1:]]
    order = draw.sample(tables, len(tables))
    return Schema({table: columns[table] for table in order}, tuple(links))


def _names(draw: random.Random, nouns: tuple[str, ...], count: int) -> list[str]:
    """Distinct column names; a noun may return with another modifier."""
    names: dict[str, None] = {}
    while len(names) < count:
        noun = draw.choice(nouns)
        names[noun if draw.random() < 0.4 else f"{draw.choice(MODIFIERS)}_{noun}"] = None
    return list(names)


def _describe(schema: Schema) -> str:
    described = []
    for table, columns in schema.columns.items():
        keys = [f"id_{other}" for refers, other in schema.links if refers == table]
        described.append(" ".join([table, "id", *keys, *(column.name for column in columns)]))
    return " | ".join(described)


def _question(draw: random.Random, schema: Schema) -> tuple[str, str]:
    """A question and its answer."""
    main = draw.choice(list(schema.columns))
    linked = [link for link in schema.links if main in link]
    link = draw.choice(linked) if draw.random() < 0.6 else None
    pool = [column for table in (link or (main,)) for column in schema.columns[table]]
    conditions = [_condition(draw, draw.choice(pool)) for _ in range(draw.choice((2, 2, 3)))]
    asked, selected, group, columns = _selection(draw, pool, OF_WHAT)
    used = {column.table for column in columns} | {column.table for column, _, _ in conditions}

    where, where_sql = draw.choice(("with", "where")), " WHERE"
    for place, (_, words, sql) in enumerate(conditions):
        joint = draw.choice(("and", "and", "or")) if place else ""
        where += f" {joint} {words}" if joint else f" {words}"
        where_sql += f" {joint.upper()} {sql}" if joint else f" {sql}"
    clauses = [where]
    tail_sql = "" if group is None else f" GROUP BY {group.name}"
    if draw.random() < 0.6:
        column = draw.choice(pool) if group is None else group
        used.add(column.table)
        words, direction = draw.choice((("descending", "DESC"), ("ascending", "ASC")))
        clauses.append(f"{draw.choice(('sorted', 'ordered'))} by {column.name} {words}")
        tail_sql += f" ORDER BY {column.name} {direction}"
    if draw.random() < 0.3:
        draw.shuffle(clauses)
    others = " and ".join(sorted(used - {main}))
    asked = asked.replace(OF_WHAT, f"{main} joined with {others}" if others else main)
    question = f"{asked} {' '.join(clauses)}"
    if draw.random() < 0.4:
        limit = draw.randint(2, 99)
        question = f"in {limit} rows {question}" if draw.random() < 0.5 else f"{question} in {limit} rows"
        tail_sql += f" LIMIT {limit}"
    return question, f"SELECT {selected} FROM {main}{_join(main, link, used)}{where_sql}{tail_sql}"


def _join(main: str, link: tuple[str, str] | None, used: set[str]) -> str:
    """The join, if a column of the other table is used."""
    if link is None or used <= {main}:
        return ""
    refers, referred = link
    other = referred if refers == main else refers
    return f" JOIN {other} ON {refers} . id_{referred} = {referred} . id"


def _selection(draw: random.Random, pool: list[Column], of_what: str) -> tuple[str, str, Column | None, list[Column]]:
    """What is asked for: words, SQL, the column grouped by, and all columns named."""
    verb = draw.choice(VERBS)
    if draw.random() < 0.6:
        columns = draw.sample(pool, min(len(pool), draw.choice((1, 2, 2, 3))))
        *before, last = (column.name for column in columns)
        words = f"{' , '.join(before)} and {last}" if before else last
        return f"{verb} the {words} of {of_what}", " , ".join(column.name for column in columns), None, columns
    group = draw.choice(pool)
    if draw.random() < 0.3:
        asked, selected, columns = f"{verb} the number of {of_what}", f"{group.name} , COUNT ( * )", [group]
    else:
        column = draw.choice([column for column in pool if column.is_number])
        words, function = draw.choice(AGGREGATES)
        asked, selected = (
            f"{verb} the {words} {column.name} of {of_what}",
            f"{group.name} , {function} ( {column.name} )",
        )
        columns = [group, column]
    asked = f"for each {group.name} {asked}" if draw.random() < 0.5 else f"{asked} per {group.name}"
    return asked, selected, group, columns


def _condition(draw: random.Random, column: Column) -> tuple[Column, str, str]:
    """The column, words and SQL of one condition."""
    if column.is_number:
        if draw.random() < 0.15:
            low, high = sorted((_number(draw), _number(draw)))
            return column, f"{column.name} between {low} and {high}", f"{column.name} BETWEEN {low} AND {high}"
        words, operator = draw.choice(COMPARISONS)
        number = _number(draw)
        return column, f"{column.name} {words} {number}", f"{column.name} {operator} {number}"
    literal = "".join(draw.choice(LETTERS) for _ in range(draw.randint(3, 6)))
    words, operator, left, right = draw.choice(
        (
            ("is", "=", "", ""),
            ("is not", "!=", "", ""),
            ("starts with", "LIKE", "", "%"),
            ("contains", "LIKE", "%", "%"),
        )
    )
    return column, f"{column.name} {words} '{literal}'", f"{column.name} {operator} '{left}{literal}{right}'"


def _number(draw: random.Random) -> int:
    """One to four digits, each count as likely."""
    digits = draw.randint(1, 4)
    return draw.randint(10 ** (digits - 1), 10**digits - 1)
