"""Prompt files."""

import pytest

from jaxspec.tasks.prompt_file import read_prompt_file


def test_order_blank_lines_and_further_keys(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "b\\nb", "id": 7}\n\n{"prompt": "ä\u2028x"}\n', encoding="utf-8")
    assert read_prompt_file(file) == ["b\nb", "ä\u2028x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no prompts"),
        ("\n \n", "holds no prompts"),
        ('{"prompt": "a"}\n{"prompt": ', "line 2 is not JSON"),
        ('{"text": "a"}\n', "line 1 is not of the form"),
        ('{"prompt": 3}\n', "line 1 is not of the form"),
        ('["prompt"]\n', "line 1 is not of the form"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    file = tmp_path / "prompts.jsonl"
    file.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_prompt_file(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match="missing.jsonl does not exist"):
        read_prompt_file(tmp_path / "missing.jsonl")


def test_what_is_not_text_is_refused(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="prompts.jsonl cannot be read as UTF-8"):
        read_prompt_file(file)
