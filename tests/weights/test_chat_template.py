"""Chat templates: what published ones use works, what a stranger's template should not do is refused."""

import pytest

from jaxspec.weights.chat_template import render_chat

USER = [{"role": "user", "content": "hi"}]


def test_roles_and_the_generation_prompt() -> None:
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m['content'] }}</{{ m.role }}>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert render_chat(template, USER) == "<user>hi</user><assistant>"


def test_blocks_leave_no_blank_lines() -> None:
    template = "{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}"
    assert render_chat(template, USER) == "hi\n"


def test_tokens_by_name_and_absent_ones() -> None:
    template = "{{ bos_token }}|{{ eos_token is defined }}"
    assert render_chat(template, USER, bos_token="<s>", eos_token=None) == "<s>|False"


def test_filters_and_loop_controls() -> None:
    template = (
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}{{ {'a': 'é'} | tojson }}"
    )
    assert render_chat(template, USER) == '01{"a": "é"}'


def test_generation_marks_are_transparent() -> None:
    template = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}!{% endfor %}"
    assert render_chat(template, USER) == "hi!"


def test_tools_are_none_and_dates_exist() -> None:
    assert render_chat("{{ tools is none }}{{ strftime_now('%Y') | length }}", USER) == "True4"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", "cannot be rendered"),
        ("{{ messages.append(1) }}", "cannot be rendered"),
        ("{{ messages.__class__.__mro__ }}", "cannot be rendered"),
        ("{{ ''.__class__.__base__.__subclasses__() }}", "cannot be rendered"),
        ("{{ nothing.at.all }}", "cannot be rendered"),
        ("{{ 1 + 'a' }}", "cannot be rendered"),
        ("{% include '/etc/hostname' %}", "cannot be rendered"),
    ],
)
def test_what_is_refused(template: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        render_chat(template, USER)
