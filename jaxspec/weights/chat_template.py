"""Chat templates, which arrive with untrusted weights: rendered in a sandbox."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox


def render_chat(template: str, messages: Sequence[Mapping[str, str]], **tokens: str | None) -> str:
    """A conversation as the text the model was tuned on, up to where it answers.

    Args:
      template: Jinja source.
      messages: each with `role` and `content`.
      **tokens: special tokens by the names templates use; those that are None are left out.

    Raises:
      ValueError: the template is malformed, refuses the messages, or tries what a sandbox forbids.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    given = {name: token for name, token in tokens.items() if token is not None}
    try:
        return environment.from_string(template).render(
            messages=list(messages), add_generation_prompt=True, tools=None, **given
        )
    except (jinja2.TemplateError, TypeError) as error:
        raise ValueError(f"the chat template cannot be rendered: {error}") from None


class _Generation(jinja2.ext.Extension):
    """`{% generation %} ... {% endgeneration %}`, which marks the model's own words for training, as its content."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
