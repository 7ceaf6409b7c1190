"""The prompts of the demonstration: three each of four kinds of work, written for it.

The kinds differ in how much of an answer is already in the prompt: an edited text nearly all of it, code its
names and shapes, arithmetic its phrases, chat hardly anything.
"""

from typing import Literal, NamedTuple

Kind = Literal["code", "chat", "editing", "arithmetic"]


class DemoPrompt(NamedTuple):
    """One message to a chat model.

    Attributes:
      kind: of work.
      title: a few words to show in tables.
      text: the message.
    """

    kind: Kind
    title: str
    text: str


PROMPTS: tuple[DemoPrompt, ...] = (
    DemoPrompt(
        "code",
        "temperature table",
        "Write three Python functions, celsius_to_fahrenheit(degrees), fahrenheit_to_celsius(degrees) and "
        "celsius_to_kelvin(degrees). Each has a one-line docstring and returns a float. Code only.",
    ),
    DemoPrompt(
        "code",
        "shape classes",
        "Write Python classes Square, Rectangle and Circle. Each has an __init__ method, an area method and "
        "a perimeter method. Code only.",
    ),
    DemoPrompt(
        "code",
        "tests for a counter",
        "Here is a class:\n\n"
        "class Counter:\n"
        "    def __init__(self):\n"
        "        self.value = 0\n\n"
        "    def add(self, amount):\n"
        "        self.value = self.value + amount\n\n"
        "    def reset(self):\n"
        "        self.value = 0\n\n"
        "Write test functions for Counter: one for add, one for reset, one for add after reset.",
    ),
    DemoPrompt("chat", "rain", "Why does it rain more on one side of a mountain range than on the other?"),
    DemoPrompt("chat", "garden", "My small balcony has four hours of sun. Suggest five plants and say why."),
    DemoPrompt("chat", "museum letter", "Write a short, friendly letter that asks a museum about a school visit."),
    DemoPrompt(
        "editing",
        "move a meeting",
        "Rewrite this message with Tuesday changed to Thursday. Change nothing else.\n\n"
        "Dear all, the planning meeting takes place on Tuesday at ten in the large room on the second floor. "
        "Please read the report before Tuesday and bring two questions. If you cannot come on Tuesday, tell "
        "Maria, who will take notes for you. Coffee and bread will be on the table from half past nine. "
        "Kind regards, Tom",
    ),
    DemoPrompt(
        "editing",
        "rename a variable",
        "Rewrite this Python function with the variable total renamed to amount. Change nothing else.\n\n"
        "def invoice(prices, discount):\n"
        "    total = 0.0\n"
        "    for price in prices:\n"
        "        total = total + price\n"
        "    if total > 100.0:\n"
        "        total = total * (1.0 - discount)\n"
        '    print("The total is", total)\n'
        "    return total\n",
    ),
    DemoPrompt(
        "editing",
        "a new port",
        "Rewrite this configuration with port 8080 instead of port 5000. Change nothing else.\n\n"
        "[server]\n"
        'host = "localhost"\n'
        "port = 5000\n"
        "workers = 4\n\n"
        "[server.health]\n"
        'path = "/health"\n'
        "port = 5000\n"
        "timeout = 30\n\n"
        "[logging]\n"
        'level = "info"\n'
        'file = "server.log"\n',
    ),
    DemoPrompt(
        "arithmetic",
        "apples",
        "A box holds 24 apples. A shop buys 6 boxes and sells 97 apples. How many apples are left? Work step by step.",
    ),
    DemoPrompt(
        "arithmetic",
        "times table",
        "Write the multiplication table of 7 from 7 x 1 to 7 x 12, one line for each product.",
    ),
    DemoPrompt(
        "arithmetic",
        "train",
        "A train leaves at 9:15 and travels 180 kilometres at 60 kilometres an hour. It waits 20 minutes, "
        "then travels 90 kilometres at 45 kilometres an hour. When does it arrive? Work step by step.",
    ),
)
