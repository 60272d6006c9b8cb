"""Modelfiles of the operator: what is taken, what is refused, and with which words."""

from pathlib import Path

import pytest

from plan import modelfile
from plan.errors import SettingsError

GGUF = "/srv/models/Qwen/Qwen2.5-7B-Instruct-GGUF/master/qwen2.5-7b-instruct-q4_k_m.gguf"
WHOLE = '''# for the help desk
FROM qwen2.5:7b
parameter temperature 0.2
PARAMETER stop "<|im_end|>"
TEMPLATE """{{ .System }}
FROM here on it is the prompt: {{ .Prompt }}"""
SYSTEM """Answer in one sentence."""
MESSAGE user 你好
'''


def test_a_modelfile_names_the_tag_to_pull_before() -> None:
    found = modelfile.parse(WHOLE)
    assert (found.base, found.tag, found.files) == ("qwen2.5:7b", "qwen2.5:7b", ())
    assert found.text == WHOLE


def test_a_file_of_a_downloaded_model_needs_no_pull() -> None:
    found = modelfile.parse(f"from {GGUF}\nADAPTER {GGUF}")
    assert (found.tag, found.files) == (None, (GGUF, GGUF))


@pytest.mark.parametrize(
    "text",
    [
        "FROM\tqwen2.5:7b",
        'FROM "qwen2.5:7b"\r\nPARAMETER num_ctx 4096\r\n',
        'FROM qwen2.5:7b\nSYSTEM "You are\na helper"',
        'FROM qwen2.5:7b\nMESSAGE user """one\n\ntwo"""\nPARAMETER\tstop """\n"""',
        'FROM qwen2.5:7b\nSYSTEM you say """hi',
        'FROM qwen2.5:7b\nSYSTEM """He said "no"\nFROM me"""',
        'FROM qwen2.5:7b\nSYSTEM """one""" and\nRUN two"""',
        "FROM qwen2.5:7b\nSYSTEM one\u2028two",
        f'FROM qwen2.5:7b\nADAPTER "{GGUF}"',
    ],
)
def test_what_ollama_reads_is_read_as_it_does(text: str) -> None:
    assert modelfile.parse(text).base == "qwen2.5:7b"


def test_a_mark_of_utf8_at_the_beginning_is_no_instruction(tmp_path: Path) -> None:
    (tmp_path / "desk").write_text("\ufeffFROM qwen2.5:7b\n")
    assert modelfile.read("x", str(tmp_path / "desk")).text == "FROM qwen2.5:7b\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("SYSTEM x", "has 0 FROM lines. Write exactly one."),
        ("FROM a\nFROM b", "has 2 FROM lines. Write exactly one."),
        ("FROM a\nRUN id", "line 2: 'RUN' is no instruction. Correct it."),
        ('FROM a\nSYSTEM """x', "line 2: its quotes are not closed. Close them."),
        ('FROM a\nSYSTEM "x\n', "line 2: its quotes are not closed. Close them."),
        ("FROM a b", "FROM 'a b' is no tag and no file. Write it as in 'FROM qwen2.5:7b'."),
    ],
)
def test_what_ollama_could_not_read_is_refused_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        modelfile.parse(text)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    "path",
    [
        "./model.gguf",
        "/etc/shadow",
        "/srv/models/../etc/x.gguf",
        "/srv/models/a/../../b/x.gguf",
        "/srv/models/Qwen/x/",
        "~/model.gguf",
    ],
)
@pytest.mark.parametrize("word", ["FROM", "ADAPTER"])
def test_a_file_that_no_download_brings_is_refused(word: str, path: str) -> None:
    with pytest.raises(ValueError, match=r"is no file that the host will have|is no tag and no file"):
        modelfile.parse(f"FROM qwen2.5:7b\nADAPTER {path}" if word == "ADAPTER" else f"FROM {path}")


def test_a_modelfile_that_is_missing_or_no_text_is_refused_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"GGUF\xff\xfe")
    for name, fact in (("missing", "No such file"), ("binary", "is no text in UTF-8")):
        with pytest.raises(SettingsError, match=rf"^serve.x.ollama.modelfile: .*{name}.*{fact}"):
            modelfile.read("serve.x.ollama.modelfile", str(tmp_path / name))
