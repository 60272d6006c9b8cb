"""Settings are read strictly: a wrong value is one sentence (setting, fact, fix), a good one is kept."""

from pathlib import Path
from typing import Any

import pytest

from plan import secrets, settings
from plan.errors import SettingsError
from plan.sections import Access

MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
SERVED = {"model": MODEL}
KEY = "0123456789abcdef"
PORT_MEANING = "TCP port; decided when absent: 8000, 8001, ... in order of names, and kept."
NAMES = "Use lower-case letters, digits and dashes."
FLAGS = "Write flags as in {'enable-prefix-caching': True}."
SERVICES = "Write serve = {'NAME': {'model': 'Qwen/Qwen2.5-7B-Instruct'}}."
WRITE_MODEL = "Write it as in 'Qwen/Qwen2.5-7B-Instruct'."
WRITE_ENDPOINT = "Write it as in 'https://www.modelscope.cn'."
FORM = "has signs or a form not allowed here."


def refusals(*layers: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        settings.read(layers)
    return refused.value.sentences


def service(**changed: Any) -> dict[str, Any]:
    """Settings with one good service, but for what is changed."""
    return {"serve": {"chat": SERVED | changed}}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"serv": {}}, "serv: there is no such section. Did you mean `serve`?"),
        (
            {"colour": "red"},
            "colour: there is no such section. "
            "Known here: serve, models, driver, burn_in, environment, ollama, sources, bundle, access.",
        ),
        (service(modle=MODEL), "serve.chat.modle: there is no such setting. Did you mean `model`?"),
        (service(revison="main"), "serve.chat.revison: there is no such setting. Did you mean `revision`?"),
        ({"access": {"listens": "::1"}}, "access.listens: there is no such setting. Did you mean `listen`?"),
        (
            {"models": {"Qwen/QwQ-32B": {"branch": "x"}}},
            "models.Qwen/QwQ-32B.branch: there is no such setting. "
            "Known here: revision, include, exclude, state.",
        ),
        (
            {"serve": {"chat": {}}},
            "serve.chat.model: is missing. Set it, for example 'Qwen/Qwen2.5-7B-Instruct'.",
        ),
    ],
)
def test_a_misspelled_or_missing_name_is_refused_with_the_right_one(
    data: dict[str, Any], sentence: str
) -> None:
    assert refusals(data) == [sentence]


def test_a_dot_in_a_model_id_does_not_hide_what_is_known_there() -> None:
    assert refusals({"models": {MODEL: {"branch": "x"}}}) == [
        f"models.{MODEL}.branch: there is no such setting. Known here: revision, include, exclude, state."
    ]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (service(model="a/$(id)"), f"serve.chat.model: 'a/$(id)' {FORM} {WRITE_MODEL}"),
        (service(model="a/b\n"), f"serve.chat.model: 'a/b\\n' {FORM} {WRITE_MODEL}"),
        (service(model="../b"), f"serve.chat.model: '../b' {FORM} {WRITE_MODEL}"),
        (service(model="a/../b"), f"serve.chat.model: 'a/../b' {FORM} {WRITE_MODEL}"),
        (
            service(revision="main; reboot"),
            f"serve.chat.revision: 'main; reboot' {FORM} Branch, tag or commit of the model.",
        ),
        (
            service(served_name="my model"),
            f"serve.chat.served_name: 'my model' {FORM} Name that clients ask for; the model id when absent.",
        ),
        ({"serve": {"Chat!": SERVED}}, f"serve.Chat!: 'Chat!' {FORM} {NAMES}"),
        ({"models": {"a/b c": {}}}, f"models.a/b c: 'a/b c' {FORM} Use organisation/name."),
        (
            {"environment": {"name": "../serve"}},
            f"environment.name: '../serve' {FORM} Name of the conda environment.",
        ),
        ({"environment": {"python": "3.8"}}, f"environment.python: '3.8' {FORM} Write it as in '3.12'."),
        (
            {"environment": {"packages": ["requests>=2"]}},
            f"environment.packages.0: 'requests>=2' {FORM} Write packages as in ['langfuse==3.0.0'].",
        ),
        (service(vllm="latest"), f"serve.chat.vllm: 'latest' {FORM} Write it as in '0.19.1'."),
        (
            {"sources": {"models": "https://hub.example/`id`"}},
            f"sources.models: 'https://hub.example/`id`' {FORM} {WRITE_ENDPOINT}",
        ),
        (
            {"sources": {"models": "ftp://hub.example"}},
            f"sources.models: 'ftp://hub.example' {FORM} {WRITE_ENDPOINT}",
        ),
        (
            {"sources": {"models": "https://me:secret@hub.example"}},
            f"sources.models: 'https://...@hub.example' {FORM} {WRITE_ENDPOINT}",
        ),
        (
            {"sources": {"conda_installer_sha256": "abc"}},
            f"sources.conda_installer_sha256: 'abc' {FORM} "
            "sha256 of that installer; needed when `conda_installer` is another version's.",
        ),
        (
            {"access": {"api_key_env": "my-key"}},
            f"access.api_key_env: 'my-key' {FORM} "
            "Environment variable on the operator's machine that holds the API key.",
        ),
        (
            service(flags={"Enable It": True}),
            f"serve.chat.flags.Enable It: 'Enable It' {FORM} {NAMES}",
        ),
        (
            service(flags={"tool-call-parser": "$(reboot)"}),
            f"serve.chat.flags.tool-call-parser: '$(reboot)' {FORM} {FLAGS}",
        ),
    ],
)
def test_signs_that_a_shell_or_a_unit_could_read_are_refused(data: dict[str, Any], sentence: str) -> None:
    assert refusals(data) == [sentence]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            service(port=80),
            "serve.chat.port: 80 is not valid: input should be greater than or equal to 1024. "
            + PORT_MEANING,
        ),
        (
            service(port=70000),
            "serve.chat.port: 70000 is not valid: input should be less than or equal to 65535. "
            + PORT_MEANING,
        ),
        (
            service(port="8000"),
            "serve.chat.port: '8000' is not valid: input should be a valid integer. " + PORT_MEANING,
        ),
        (
            service(gpus=0),
            "serve.chat.gpus: 0 is not valid: input should be greater than or equal to 1. "
            "How many GPUs; decided from the fit when absent.",
        ),
        (
            service(gpu_memory_utilization=1.0),
            "serve.chat.gpu_memory_utilization: 1.0 is not valid: "
            "input should be less than or equal to 0.98. "
            "Share of each GPU's memory that vLLM may take.",
        ),
        (
            service(engine="tgi"),
            "serve.chat.engine: 'tgi' is not valid: input should be 'vllm' or 'ollama'. "
            "What serves the model.",
        ),
        (
            service(state="gone"),
            "serve.chat.state: 'gone' is not valid: input should be 'present' or 'absent'. "
            "`absent` stops and removes the service.",
        ),
        (
            service(flags={"block-size": [16]}),
            "serve.chat.flags.block-size: [16] is not valid: input should be a valid string. " + FLAGS,
        ),
        (
            {"sources": "chian"},
            "sources.preset: 'chian' is not valid: input should be 'default' or 'china'. "
            "The set of addresses to start from.",
        ),
        (
            {"serve": MODEL},
            f"serve: {MODEL!r} is not valid: input should be a mapping. {SERVICES}",
        ),
        (
            service(gpus=3, flags={"tensor-parallel-size": 2}),
            "serve.chat.gpus: 3 is no multiple of 2, which flags has for tensor-parallel-size. "
            "Leave one of them out.",
        ),
        (
            {"environment": {"packages": ["numpy==1.26.4", "NumPy==2.0.0"]}},
            "environment.packages: numpy is there twice. Leave one out.",
        ),
        # the name of the service was forgotten, or its settings
        (
            {"serve": {"model": MODEL}},
            f"serve.model: {MODEL!r} is not valid: input should be a mapping. {SERVICES}",
        ),
        (
            {"driver": "570"},
            "driver: '570' is not valid: input should be a mapping. Write it as in {'branch': 580}.",
        ),
    ],
)
def test_a_value_out_of_its_bounds_or_type_is_refused(data: dict[str, Any], sentence: str) -> None:
    assert refusals(data) == [sentence]


def test_a_password_in_an_address_is_not_told() -> None:
    (sentence,) = refusals({"models": {"proxy": "http://ops:S3cret@proxy.intranet:3128"}})
    assert "S3cret" not in sentence and "http://...@proxy.intranet:3128" in sentence


def test_every_wrong_setting_of_a_host_is_named_at_once() -> None:
    found = refusals(service(port=80, engine="tgi"), {"serv": {}})
    assert [sentence.split(":")[0] for sentence in found] == ["serve.chat.engine", "serve.chat.port", "serv"]


def test_a_model_without_an_organisation_is_no_hub_id() -> None:
    assert refusals(service(model="Qwen2.5-7B")) == [
        "serve.chat.model: 'Qwen2.5-7B' is not a hub id. Write it as organisation/name, "
        "for example Qwen/Qwen2.5-7B, or set `engine: ollama`."
    ]


def test_ollama_takes_a_tag() -> None:
    assert settings.read([service(engine="ollama", model="qwen2.5:7b")]).serve["chat"].model == "qwen2.5:7b"


def test_a_tag_is_no_hub_id() -> None:
    assert refusals(service(model="Qwen/Qwen2.5-7B:latest")) == [
        "serve.chat.model: 'Qwen/Qwen2.5-7B:latest' is not a hub id. Write it as organisation/name, "
        "for example Qwen/Qwen2.5-7B, or set `engine: ollama`."
    ]


def test_two_services_cannot_have_one_port() -> None:
    both = {"serve": {"a": SERVED | {"port": 8000}, "b": SERVED | {"port": 8000}}}
    assert refusals(both) == ["serve.b.port: 8000 is serve.a's too. Choose another."]


def test_a_service_and_what_it_needs_cannot_be_present_and_absent() -> None:
    assert refusals(service(), {"models": {MODEL: {"state": "absent"}}}) == [
        f"models.{MODEL}.state: is absent, and serve.chat serves it. Set both alike."
    ]
    assert refusals(service(), {"environment": {"state": "absent"}}) == [
        "environment.state: is absent, and serve.chat lives in it. Set that to absent too."
    ]
    settings.read([service(), {"models": {MODEL: {"state": "absent", "revision": "old"}}}])


class TestWhoMayReachAService:
    def test_a_service_that_is_not_on_loopback_needs_a_key(self) -> None:
        assert refusals(service(), {"access": {"listen": "10.1.0.0/16"}}) == [
            "access.listen: 10.1.0.0/16 is not loopback and there is no key. "
            "Set access.api_key_file or access.api_key_env."
        ]

    @pytest.mark.parametrize("listen", ["0.0.0.0", "::", "0.0.0.0/0", "fd00::/8"])
    def test_neither_is_it_open_to_everyone_without_a_key(self, listen: str) -> None:
        assert "there is no key" in refusals(service(), {"access": {"listen": listen}})[0]

    @pytest.mark.parametrize("listen", ["127.0.0.1", "::1", "127.0.0.0/8"])
    def test_loopback_needs_no_key(self, listen: str) -> None:
        assert settings.read([service(), {"access": {"listen": listen}}]).access.listen == listen

    @pytest.mark.parametrize(
        "listen", ["localhost", "10.1.0.0/33", "$(id)", "10.0.0.1\n", "fe80::1%eth0; reboot", "fe80::1%\nx=y"]
    )
    def test_what_is_no_address_is_refused(self, listen: str) -> None:
        assert refusals({"access": {"listen": listen}}) == [
            f"access.listen: {listen!r} is no address or network. Write one such as '10.1.0.0/16'."
        ]


class TestMerging:
    def test_later_layers_win_key_by_key(self) -> None:
        read = settings.read(
            [
                {"serve": {"chat": {"model": "all/model", "port": 8100, "revision": "all"}}},
                {"serve": {"chat": {"model": "group/model", "revision": "group"}}},
                {"serve": {"chat": {"revision": "host"}, "code": SERVED}},
                {"serve": {"chat": {"gpus": 2}}},
            ]
        )
        chat = read.serve["chat"]
        assert (chat.model, chat.port, chat.revision, chat.gpus) == ("group/model", 8100, "host", 2)
        assert set(read.serve) == {"chat", "code"}

    def test_lists_are_replaced_not_joined(self) -> None:
        read = settings.read(
            [{"environment": {"packages": ["a==1"]}}, {"environment": {"packages": ["b==2"]}}]
        )
        assert read.environment.packages == ["b==2"]

    def test_no_layer_is_changed_by_merging(self) -> None:
        first: dict[str, Any] = {"serve": {"chat": dict(SERVED)}}
        settings.merge([first, service(port=9000)])
        assert first == {"serve": {"chat": SERVED}}

    def test_sources_may_be_the_name_of_a_preset_and_be_changed_later(self) -> None:
        read = settings.read([{"sources": "china"}, {"sources": {"models": "https://hub.example"}}])
        assert (read.sources.preset, read.sources.models) == ("china", "https://hub.example")

    def test_a_preset_on_a_host_keeps_the_addresses_of_all(self) -> None:
        read = settings.read([{"sources": {"models": "https://hub.example"}}, {"sources": "china"}])
        assert (read.sources.preset, read.sources.models) == ("china", "https://hub.example")

    def test_data_of_pyinfra_itself_is_no_setting(self) -> None:
        own = {"ssh_user": "ops", "ssh_hostname": "10.0.0.1", "_sudo": True, "_su_user": "x"}
        assert settings.read([own]) == settings.Settings()


class TestTheKey:
    def test_is_read_from_a_file_in_the_home_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "key").write_text(f"{KEY}\n")
        assert secrets.api_key(Access(api_key_file="~/key")) == KEY

    def test_is_read_from_the_environment_which_beats_the_file(self) -> None:
        access = Access(api_key_file="/nowhere", api_key_env="BRINGUP_KEY")
        assert secrets.api_key(access, {"BRINGUP_KEY": KEY}) == KEY

    def test_is_none_when_there_is_none(self) -> None:
        assert secrets.api_key(Access()) is None

    def test_file_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError) as refused:
            secrets.api_key(Access(api_key_file=str(tmp_path / "key")))
        assert refused.value.sentences == [
            f"access.api_key_file: {tmp_path}/key: No such file or directory. "
            "Write the key into that file, mode 0600."
        ]

    @pytest.mark.parametrize("text", ["", "short", f"{KEY} {KEY}", f"{KEY}\n{KEY}", f"{KEY}$(id)", "k" * 257])
    def test_that_is_short_or_no_plain_token_is_refused_without_showing_it(
        self, tmp_path: Path, text: str
    ) -> None:
        (tmp_path / "key").write_text(text)
        with pytest.raises(SettingsError) as refused:
            secrets.api_key(Access(api_key_file=str(tmp_path / "key")))
        assert refused.value.sentences == [
            f"access.api_key_file: {tmp_path}/key: holds no usable key. "
            "Use 16 to 256 letters, digits or . _ ~ + / = - signs."
        ]

    def test_variable_that_is_not_set(self) -> None:
        with pytest.raises(SettingsError) as refused:
            secrets.api_key(Access(api_key_env="BRINGUP_KEY"), {})
        assert refused.value.sentences[0].startswith("access.api_key_env: $BRINGUP_KEY: holds no usable key.")

    def test_file_with_bytes_that_are_no_text_is_refused_too(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_bytes(b"\xff\xfe" * 20)
        with pytest.raises(SettingsError, match="holds no usable key"):
            secrets.api_key(Access(api_key_file=str(tmp_path / "key")))
