"""What the files of a Hugging Face folder say of its tokenizer."""

import json

import pytest
from tiny_model import CHAT_TEMPLATE, build_tokenizer
from tokenizers import processors

from jaxspec.weights.folder_tokenizer import has_tokenizer, tokenizer_from_folder


def write(folder, **files) -> None:
    """`tokenizer.json`, and JSON files by their names without the ending."""
    build_tokenizer().save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def test_a_bare_tokenizer(tmp_path) -> None:
    write(tmp_path)
    tokenizer = tokenizer_from_folder(tmp_path)
    assert has_tokenizer(tmp_path) and tokenizer.bos_id is None and tokenizer.eos_id is None
    assert tokenizer.eos_ids == (2, 0) and not tokenizer.has_chat_template
    assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"


def test_special_tokens_as_texts_and_as_records(tmp_path) -> None:
    write(tmp_path, tokenizer_config={"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}})
    tokenizer = tokenizer_from_folder(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)


def test_ids_where_no_name_is_given(tmp_path) -> None:
    write(tmp_path, config={"bos_token_id": 1, "eos_token_id": 5}, tokenizer_config={"bos_token": None})
    tokenizer = tokenizer_from_folder(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_ids) == (1, 5, (5, 2, 0))


def test_every_file_adds_its_ends(tmp_path) -> None:
    write(
        tmp_path,
        generation_config={"eos_token_id": [8, 9]},
        config={"eos_token_id": 10},
        tokenizer_config={"eos_token": "<|endoftext|>"},
    )
    assert tokenizer_from_folder(tmp_path).eos_ids == (0, 8, 9, 10, 2)


@pytest.mark.parametrize(("flag", "begins"), [({"add_bos_token": True}, True), ({"add_bos_token": False}, False)])
def test_bos_by_flag(tmp_path, flag: dict, begins: bool) -> None:
    write(tmp_path, tokenizer_config={"bos_token": "<|endoftext|>"} | flag)
    assert (tokenizer_from_folder(tmp_path).encode("a")[0] == 0) == begins


def test_bos_by_the_tokenizer_itself(tmp_path) -> None:
    write(tmp_path, tokenizer_config={"bos_token": "<|endoftext|>"})
    backend = build_tokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer_from_folder(tmp_path).encode("a")[0] == 0


def test_lengths_of_training_are_forgotten(tmp_path) -> None:
    write(tmp_path)
    backend = build_tokenizer()
    backend.enable_truncation(2)
    backend.enable_padding(length=50)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer_from_folder(tmp_path).encode("the cat sat") == build_tokenizer().encode("the cat sat").ids


@pytest.mark.parametrize("where", ["settings", "several", "jinja", "json"])
def test_chat_templates_of_all_ages(tmp_path, where: str) -> None:
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": CHAT_TEMPLATE}]
    settings = {"settings": {"chat_template": CHAT_TEMPLATE}, "several": {"chat_template": several}}
    write(tmp_path, tokenizer_config=settings.get(where, {}))
    if where == "jinja":
        (tmp_path / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    if where == "json":
        (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    tokenizer = tokenizer_from_folder(tmp_path)
    assert tokenizer.decode(tokenizer.chat("hi"), skip_special=False).startswith("<|im_start|>user\nhi<|im_end|>")


def test_the_file_beside_wins_over_the_settings(tmp_path) -> None:
    write(tmp_path, tokenizer_config={"chat_template": "old"})
    (tmp_path / "chat_template.jinja").write_text("new")
    tokenizer = tokenizer_from_folder(tmp_path)
    assert tokenizer.decode(tokenizer.chat("hi")) == "new"


def test_a_missing_tokenizer_names_folder_and_files(tmp_path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        tokenizer_from_folder(tmp_path)
    assert not has_tokenizer(tmp_path)
    for word in (str(tmp_path), "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert word in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_a_damaged_tokenizer(tmp_path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="tokenizer.json is not a tokenizer"):
        tokenizer_from_folder(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer_config", "generation_config", "config"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_file_beside(tmp_path, name: str, content: str) -> None:
    write(tmp_path)
    (tmp_path / f"{name}.json").write_text(content)
    with pytest.raises(ValueError, match=f"{name}.json is not"):
        tokenizer_from_folder(tmp_path)
