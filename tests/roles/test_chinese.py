"""What the report says of hosts, in Chinese: whole, or not at all."""

import re
import string
from pathlib import Path

import pytest
import tomli

from ops import chinese
from ops.chinese import translated
from plan import settings
from plan.decide import plan_host
from plan.probe import parse
from plan.report import described
from tests.plan import test_drift
from tests.verify import health

ROOT = Path(__file__).parents[2]
SENTENCES: dict[str, str] = tomli.loads((chinese.TEMPLATES / "sentences.toml").read_text())["sentences"]


@pytest.mark.parametrize(
    ("english", "said"),
    [
        (
            "/etc/x.service was edited on the host since the deploy of 2026-11-22. "
            "Put the change into the settings, or deploy again to undo it.",
            "/etc/x.service 在 2026-11-22 的部署之后被人在主机上改动过。"
            "请把改动写进设置，或者重新部署以撤销它。",
        ),
        ("service answers a chat (chat Qwen on 8000)", "服务能回答对话（chat Qwen on 8000）"),
        (
            "serve.chat.port: 8000 is serve.code's too. Choose another.",
            "serve.chat.port：8000 也是 serve.code 的端口。请换一个。",
        ),
        (
            "it is there and suffices; it brings CUDA 12.8; open kernel modules: "
            "NVIDIA's default for this generation since 560",
            "已安装且够用；自带 CUDA 12.8；开放内核模块：自 560 起为 NVIDIA 对这一代的默认选择",
        ),
    ],
)
def test_sentences_of_ours_are_told_in_chinese(english: str, said: str) -> None:
    assert translated(english) == said


@pytest.mark.parametrize(
    "english",
    [
        "Something that nobody has translated.",
        "/etc/x was removed from the host. And then something that nobody has translated.",
        "something else; no GPU",
    ],
)
def test_what_is_not_known_whole_stays_english(english: str) -> None:
    assert translated(english) is None


def test_both_sides_of_every_sentence_have_the_same_places() -> None:
    def places(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    assert [english for english, said in SENTENCES.items() if places(english) != places(said)] == []


def test_every_check_has_its_name_in_chinese() -> None:
    text = "".join(path.read_text() for path in (ROOT / "tests/verify").glob("test_*.py"))
    names = {name.replace("_", " ") for name in re.findall(r"^def test_(\w+)", text, re.MULTILINE)}
    assert len(names) > 50
    assert [name for name in sorted(names) if not translated(name)] == []


@pytest.mark.parametrize("how", test_drift.SABOTAGE)
def test_whatever_was_done_to_a_host_is_told_in_chinese(how: str) -> None:
    (difference,) = test_drift.SABOTAGE[how][0]()
    assert translated(difference.sentence), difference.sentence


def test_a_wrong_clock_is_told_in_chinese() -> None:
    for seconds in (-3600, 3600):
        (sentence,) = health.clock(seconds)
        assert translated(sentence), sentence


@pytest.mark.parametrize("text", [test_drift.BARE, test_drift.GPU], ids=["no GPU", "H100"])
def test_the_reasons_of_a_plan_are_told_in_chinese(text: str) -> None:
    wanted = settings.read([test_drift.DATA])
    rows = described(plan_host("gpu-1", wanted, parse(text)), parse(text))["plan"]
    english = [row.because for row in rows if row.because and not translated(row.because)]
    assert english == []
    assert len(rows) > 6
