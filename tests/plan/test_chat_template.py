"""A chat template of the operator's is read, compiled and named by its text before anything is planned."""

from pathlib import Path

import pytest

from plan import settings
from plan.errors import SettingsError
from tests.plan.test_services import service

PLAIN = "{% for message in messages %}{{ message.content }}{% endfor %}"


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "own.jinja"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_it_travels_to_the_host_under_a_name_that_changes_with_its_text(tmp_path: Path) -> None:
    first = service(chat_template=written(tmp_path, PLAIN))
    assert first.chat_template and first.chat_template.text == PLAIN
    assert first.chat_template.path.startswith("/etc/bringup/chat-templates/chat-")
    assert first.flags["chat-template"] == first.chat_template.path
    second = service(chat_template=written(tmp_path, PLAIN + "!"))
    assert second.flags["chat-template"] != first.flags["chat-template"]


def test_one_that_the_model_brings_along_is_read_from_its_directory() -> None:
    found = service(chat_template="model:templates/tool_use.jinja")
    assert found.chat_template and found.chat_template.text is None
    assert found.flags["chat-template"] == f"{found.model.directory}/templates/tool_use.jinja"


def test_what_transformers_and_vllm_understand_compiles(tmp_path: Path) -> None:
    text = "{% for m in messages %}{% if loop.index > 9 %}{% break %}{% endif %}"
    text += "{%- generation %}{{ m | tojson }}{% endgeneration -%}{% endfor %}{{ raise_exception('no') }}"
    assert service(chat_template=written(tmp_path, text)).chat_template


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("{% for m in messages %}", "is no Jinja template: line 1: Unexpected end of template"),
        ("{{ messages | nonsense }}", "is no Jinja template: line 1: No filter named 'nonsense'"),
        (" \n", "is empty or over 256 KiB. Correct it."),
        ("a" * 300_000, "is empty or over 256 KiB. Correct it."),
        (b"\xff\xfe", "is no text in UTF-8. Save it as such."),
    ],
)
def test_what_is_no_template_is_refused(tmp_path: Path, text: str | bytes, fact: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        service(chat_template=path)
    assert f"serve.chat.chat_template: {path} {fact}" in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"serve.chat.chat_template: /nowhere/x: No such file"):
        service(chat_template="/nowhere/x")


@pytest.mark.parametrize("path", ["model:../x", "model:/etc/passwd", "model:a/../../b", "a\nb", "$x"])
def test_a_path_that_leaves_the_model_or_the_line_is_refused(path: str) -> None:
    wanted = {"serve": {"chat": {"model": "Qwen/Qwen2.5-7B-Instruct", "chat_template": path}}}
    with pytest.raises(SettingsError, match="has signs or a form not allowed here"):
        settings.read([wanted])
