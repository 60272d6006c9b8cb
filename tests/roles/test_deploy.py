"""The whole of deploy.py against fake hosts: what is sent, in which order, and what a failure costs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from plan import settings
from plan.decide import plan_host
from plan.gateway import UNLOADED
from plan.host import HostPlan
from plan.probe import parse
from plan.settings import merge
from roles.gateway.deploy import GIVEN_CERTIFICATE, GIVEN_KEY
from roles.models.deploy import programs
from tests import probes
from tests.probes import with_block
from tests.roles import commits
from tests.roles.fleet import Answer, FakeHost, Run, deploy
from tests.roles.served import MODEL_BYTES, served

KEY = "a-key-that-nobody-may-see-0123"
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
SLUG = "qwen2.5-0.5b-instruct-050933"
BARE = probes.answer(probes.BARE)
GPU = with_block(
    with_block(BARE, "pci", "0000:18:00.0 0x10de 0x2330 0x030200"),
    "driver",
    "580.65.06",
)
ONE = {"serve": {"chat": {"model": MODEL}}}
TWO = {"serve": {"b": {"model": "Qwen/Qwen2.5-1.5B-Instruct"}, "a": {"model": MODEL}}}


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One service for the hosts' network, behind a key."""
    key = tmp_path_factory.mktemp("operator") / "api-key"
    key.write_text(f"{KEY}\n")
    return ONE | {"access": {"listen": "10.44.0.0/24", "api_key_file": str(key)}}


@pytest.fixture(scope="module")
def first(lan: dict[str, Any]) -> Run:
    """A first run over three bare hosts and one that cannot be served."""
    return deploy(
        FakeHost("cpu", BARE, lan),
        FakeHost("gpu", GPU, ONE | {"_sudo": True}),
        FakeHost("two", BARE, TWO),
        FakeHost("container", probes.answer(probes.CONTAINER), ONE),
    )


def plan(text: str, data: Mapping[str, Any]) -> HostPlan:
    wanted = settings.read([data])
    return plan_host("host", wanted, parse(text), pins=commits.pins(wanted))


@pytest.fixture(scope="module")
def converged(first: Run, lan: dict[str, Any]) -> dict[str, str]:
    """Host -> its probe's text after the first run."""
    bare = {"cpu": (BARE, lan), "gpu": (GPU, ONE), "two": (BARE, TWO)}
    return {name: served(text, first.execs[name], plan(text, data)) for name, (text, data) in bare.items()}


RESTART = ["service restart", "look"]
GONE = [
    "disable bringup-gateway.service",
    "remove /etc/systemd/system/bringup-gateway.service",
    "userdel bringup-gateway",
]
STAMP = ["stamp", "write /etc/bringup/plan.json"]
UNIT = "/etc/systemd/system/vllm-chat.service"
ENVIRONMENT = "/etc/bringup/environments/serve"
FRONT = "/etc/bringup/gateway/nginx.conf"
FIRST_RUN = [
    "probe",
    "start packages",
    "join packages",
    "useradd bringup",
    "directories /srv/models",
    f"write {ENVIRONMENT}/conda.explicit.txt {ENVIRONMENT}/uv.txt"
    f" {ENVIRONMENT}/constraints.txt {ENVIRONMENT}/pyproject.toml",
    *("start conda", "join conda", "start environment", "join environment"),
    *("start uv", "join uv", "start resolve", "join resolve"),
    *("start install-models", "join install-models"),
    f"write {' '.join(program.path for program in programs())}",
    f"start model-{SLUG}",
    *("start install-torch", "join install-torch"),
    "write /opt/bringup/bin/check-torch",
    *("start check-torch", "join check-torch"),
    *("start install-vllm", "join install-vllm"),
    f"join model-{SLUG}",
    "write /etc/bringup/model-pins.json",
    "write /opt/bringup/bin/wait-until-ready",
    "write /etc/systemd/system/vllm-chat.service",
    *("service restart", "look"),
    *("start gateway-packages", "join gateway-packages"),
    "useradd bringup-gateway",
    "directories /var/cache/bringup/gateway",
    *("certificate", "fingerprint"),
    f"write {FRONT}",
    "write /etc/systemd/system/bringup-gateway.service",
    *("service restart", "look"),
    *("stamp", "write /etc/bringup/plan.json"),
]


class TestFirstRun:
    def test_goes_from_a_bare_host_to_a_served_model_in_this_order(self, first: Run) -> None:
        assert first.kinds("cpu") == FIRST_RUN

    def test_downloads_the_model_while_torch_and_vllm_are_installed(self, first: Run) -> None:
        kinds = first.kinds("cpu")
        assert kinds.index(f"start model-{SLUG}") < kinds.index("start install-torch")
        assert kinds.index("join install-vllm") < kinds.index(f"join model-{SLUG}")

    def test_needs_no_key_on_loopback(self, first: Run) -> None:
        assert not [kind for kind in first.kinds("gpu") if "gateway" in kind]

    def test_serves_every_model_of_a_host_whatever_its_neighbours_have(self, first: Run) -> None:
        kinds = first.kinds("two")
        assert len([kind for kind in kinds if kind.startswith("start model-")]) == 2
        assert kinds[-8:-2] == [
            *("write /etc/systemd/system/vllm-a.service", *RESTART),
            *("write /etc/systemd/system/vllm-b.service", *RESTART),
        ]

    def test_runs_everything_with_the_privileges_of_the_inventory(self, first: Run) -> None:
        assert all(trip.sent.startswith("sudo ") for trip in first.execs["gpu"])
        assert not any(trip.sent.startswith("sudo ") for trip in first.execs["cpu"])

    def test_refuses_a_host_alone_and_before_anything_is_changed(self, first: Run) -> None:
        assert first.kinds("container") == ["probe"]
        assert "refused: @fake/container: host: systemd does not run here" in first.output
        assert "Plan for @fake/cpu" in first.output
        assert first.kinds("gpu")[-4:-2] == ["service restart", "look"]
        assert first.code == 1

    def test_shows_the_key_to_no_process_list_and_no_log(self, first: Run) -> None:
        assert KEY not in first.output
        assert not [trip.sent for trips in first.execs.values() for trip in trips if KEY in trip.sent]
        assert not [path for path, text in first.files("cpu").items() if KEY in text]

    def test_puts_no_front_to_work_that_nginx_has_not_found_in_order(self, first: Run) -> None:
        (trip,) = [trip for trip in first.execs["cpu"] if FRONT in trip.files()]
        assert "install -D -m 640 -o root -g bringup-gateway" in trip.command
        laid, checked, marked, moved = (
            trip.command.index(words)
            for words in (
                "install -D",
                f"nginx -t -q -c {FRONT}.new ||",
                f"touch {UNLOADED}",
                f"mv -fT -- {FRONT}.new",
            )
        )
        # should the run end here, the next one knows that nginx goes by what was there before
        assert laid < checked < marked < moved
        (loaded,) = [trip for trip in first.execs["cpu"] if f"rm -f {UNLOADED}" in trip.command]
        assert loaded.command.index("restart bringup-gateway") < loaded.command.index("rm -f")
        assert f"if [ -e {UNLOADED} ]; then echo unloaded; fi" in first.execs["cpu"][0].command


@pytest.fixture(scope="module")
def again(converged: dict[str, str], lan: dict[str, Any]) -> Run:
    """A second run over hosts that have all that the first one made."""
    return deploy(
        FakeHost("cpu", converged["cpu"], lan),
        FakeHost("gpu", converged["gpu"], ONE),
        FakeHost("two", converged["two"], TWO),
    )


class TestSecondRun:
    @pytest.mark.parametrize("host", ["cpu", "gpu", "two"])
    def test_costs_a_converged_host_one_round_trip(self, again: Run, host: str) -> None:
        assert again.kinds(host) == ["probe"]

    def test_succeeds(self, again: Run) -> None:
        assert again.code == 0


@pytest.mark.parametrize(
    ("slug", "state", "done"),
    [
        ("x", "exited", ["clear bringup-model-x.service"]),
        # with a whole model it still shares that, and nobody else would wait for its end
        (SLUG, "running", [f"start model-{SLUG}", f"join model-{SLUG}"]),
    ],
)
def test_what_a_cut_run_left_at_work_is_not_left_for_good(
    slug: str, state: str, done: list[str], converged: dict[str, str]
) -> None:
    unit = f"Id=bringup-model-{slug}.service\nActiveState=active\nSubState={state}\nUnitFileState=transient"
    run = deploy(FakeHost("gpu", changed(converged["gpu"], "^@@units\n", f"@@units\n{unit}\n\n"), ONE))
    assert run.kinds("gpu") == ["probe", *done]


def test_a_dry_run_shows_the_plan_and_changes_nothing(lan: dict[str, Any]) -> None:
    run = deploy(FakeHost("cpu", BARE, lan), options=("--dry",))
    assert run.kinds("cpu") == ["probe"]
    assert "Plan for @fake/cpu" in run.output
    assert run.code == 0


def changed(text: str, old: str, new: str) -> str:
    """The text with the first match of a pattern replaced; there must be one."""
    found, count = re.subn(old, new, text, count=1, flags=re.MULTILINE)
    assert count, old
    return found


def gateway_lines(text: str) -> list[str]:
    """The probe's block about the front."""
    return text.split("@@gateway\n")[1].split("\n@@")[0].splitlines()


def with_given(text: str) -> str:
    """The same host, on which a certificate and its key lie that the settings named before."""
    lines = [f"640 root:bringup-gateway f {path}" for path in (GIVEN_CERTIFICATE, GIVEN_KEY)]
    return changed(text, "^@@paths\n", "\n".join(["@@paths", *lines, ""]))


def with_unit(text: str, state: str) -> str:
    """The same host with its service in another state, and nobody on its port."""
    return with_block(changed(text, "ActiveState=active", f"ActiveState={state}"), "listening")


@pytest.fixture(scope="module")
def drift(converged: dict[str, str], lan: dict[str, Any]) -> Run:
    """Converged hosts, each with one thing changed, and two that fail."""
    there = converged["cpu"]
    flag = merge([lan, {"serve": {"chat": {"flags": {"max-num-seqs": 8}}}}])
    absent = merge([lan, {"serve": {"chat": {"state": "absent"}}}])
    nothing = merge([absent, {"models": {MODEL: {"state": "absent"}}, "environment": {"state": "absent"}}])
    no_installer = [
        Answer(r"SubState bringup-conda", "failed"),
        Answer(r"^journalctl .*bringup-conda", "no source has the conda installer"),
    ]
    no_port = [
        Answer(r"-p ActiveState", "failed 3 none"),
        Answer(r"^journalctl .*vllm-chat", "OSError: [Errno 98] Address already in use"),
    ]
    no_memory = [
        Answer(r"-p ActiveState", "failed 3 none"),
        Answer(r"^journalctl .*vllm-chat", "INFO start\nRuntimeError: out of memory"),
    ]
    return deploy(
        FakeHost("flag", there, flag),
        FakeHost("put-back", there, flag, [Answer("echo restored", "restored"), *no_memory]),
        FakeHost("key", changed(there, r"^\w{64}(  /etc/bringup/gateway)", "1" * 64 + r"\1"), lan),
        FakeHost("readable", changed(there, r"^640 (.*nginx.conf)$", r"644 \1"), lan),
        FakeHost("ends-soon", with_block(there, "gateway", *gateway_lines(there), "ends_soon"), lan),
        FakeHost("unloaded", with_block(there, "gateway", *gateway_lines(there), "unloaded"), lan),
        FakeHost("given-no-more", with_given(there), lan),
        FakeHost("withdrawn", there, ONE),
        FakeHost("starting", with_unit(there, "activating"), lan),
        FakeHost("stopped", with_unit(there, "inactive"), lan),
        FakeHost("edited", changed(there, "NeedDaemonReload=no", "NeedDaemonReload=yes"), lan),
        FakeHost("damaged", changed(there, f"^file {MODEL_BYTES}", "file 17"), lan),
        FakeHost("outdated", changed(there, "^dist vllm-", "dist vllm-0."), lan),
        FakeHost("unlocked", changed(there, f"^.* f {ENVIRONMENT}/requirements.*\n", ""), lan),
        FakeHost("rebuilt", changed(there, r"^conda python-3.*\n", ""), lan),
        FakeHost("absent", there, absent),
        FakeHost("nothing", there, nothing),
        FakeHost("no-conda", BARE, lan, no_installer),
        FakeHost("taken", BARE, lan, [Answer("-p SubState bringup-conda", "dead")]),
        FakeHost("port-taken", with_unit(there, "failed"), lan, no_port),
        FakeHost("unserved", with_unit(there, "failed"), lan, no_memory),
    )


class TestDrift:
    @pytest.mark.parametrize(
        ("host", "done"),
        [
            ("flag", [f"write {UNIT}", *RESTART, *STAMP]),
            ("key", [f"write {FRONT}", "reload bringup-gateway.service"]),
            ("readable", [f"write {FRONT}", "reload bringup-gateway.service"]),
            ("ends-soon", ["certificate", "fingerprint", "reload bringup-gateway.service"]),
            ("unloaded", ["reload bringup-gateway.service"]),
            ("given-no-more", [f"remove {GIVEN_CERTIFICATE}"]),
            ("withdrawn", [*GONE, f"write {UNIT}", *RESTART, *STAMP]),
            ("starting", ["service start", "look"]),
            ("stopped", RESTART),
            ("edited", RESTART),
            ("damaged", [f"start model-{SLUG}", f"join model-{SLUG}", *RESTART]),
            ("outdated", ["start install-vllm", "join install-vllm", *RESTART]),
            ("unlocked", ["start resolve", "join resolve", *STAMP]),
            ("absent", ["disable vllm-chat.service", *GONE, *STAMP]),
        ],
    )
    def test_is_mended_with_no_more_than_it_takes(self, drift: Run, host: str, done: list[str]) -> None:
        assert drift.kinds(host) == ["probe", *done]

    def test_a_certificate_is_reloaded_by_the_next_run_where_this_one_is_cut_before_it(
        self, drift: Run
    ) -> None:
        made, _, loaded = drift.execs["ends-soon"][1:]
        assert made.command.index(f"touch {UNLOADED}") < made.command.index("mv -f")
        assert loaded.command == f"systemctl reload bringup-gateway.service && rm -f {UNLOADED}"

    def test_a_rebuilt_environment_gets_all_its_packages_and_a_restart(self, drift: Run) -> None:
        kinds = drift.kinds("rebuilt")
        started = [kind.removeprefix("start ") for kind in kinds if kind.startswith("start ")]
        assert started == [
            "environment",
            "uv",
            "install-models",
            "install-torch",
            "check-torch",
            "install-vllm",
        ]
        assert kinds[-2:] == RESTART

    def test_everything_that_was_put_on_a_host_is_taken_off_again(self, drift: Run) -> None:
        assert set(drift.kinds("nothing")[1:]) == {
            "disable vllm-chat.service",
            *GONE,
            "start environment",
            "join environment",
            f"remove /srv/models/{MODEL}",
            "userdel bringup",
            *STAMP,
        }
        (trip,) = [trip for trip in drift.execs["nothing"] if trip.command.endswith("userdel bringup")]
        assert "rm -rf -- /var/lib/bringup /var/cache/bringup" in trip.command

    def test_a_service_stops_before_what_it_runs_on_goes(self, drift: Run) -> None:
        assert drift.kinds("nothing")[1] == "disable vllm-chat.service"

    def test_a_failed_task_fails_its_host_alone_with_its_last_words(self, drift: Run) -> None:
        assert drift.kinds("no-conda")[-2:] == ["join conda", "journal bringup-conda.service"]
        assert "installing conda: failed after 0 s. Its last words:" in drift.output
        assert "no source has the conda installer" in drift.output
        assert drift.code == 1

    def test_a_task_that_another_run_took_over_fails_its_host_and_says_so(self, drift: Run) -> None:
        words = "bringup-conda.service is not there any more: another run on this host took it over"
        assert f"installing conda: {words}" in drift.output
        assert drift.kinds("taken")[-1] == "join conda"

    def test_a_service_that_does_not_serve_fails_its_host_with_what_to_change(self, drift: Run) -> None:
        words = "The GPU ran out of memory: lower serve.chat.max_model_len or"
        assert f"service chat: does not serve after 0 s. {words}" in drift.output
        assert "More: journalctl -u vllm-chat.service" in drift.output

    def test_an_engine_behind_the_front_whose_port_is_taken_is_not_sent_to_the_setting_of_the_fronts(
        self, drift: Run
    ) -> None:
        assert "run again, and it takes another" in drift.output
        assert "set serve.chat.port" not in drift.output

    def test_a_changed_service_that_does_not_serve_is_put_back_and_fails_all_the_same(
        self, drift: Run
    ) -> None:
        assert drift.kinds("put-back")[1:] == [
            f"write {UNIT}",
            *RESTART,
            *("journal vllm-chat.service", "put back", "look", "journal vllm-chat.service"),
        ]
        assert "the old one is put back: its settings, its model." in drift.output

    def test_a_running_service_gets_no_unit_with_a_flag_that_its_vllm_lacks(self, drift: Run) -> None:
        (trip,) = [trip for trip in drift.execs["flag"] if UNIT in trip.files()]
        assert "for flag in --enforce-eager" in trip.command
        assert trip.command.index("grep -qx -e $flag") < trip.command.index("mv -fT")


def test_wrong_settings_of_one_host_do_not_stop_the_others(tmp_path: Path) -> None:
    run = deploy(
        FakeHost("typo", BARE, {"serv": {}}),
        FakeHost("no-key", BARE, {"access": {"api_key_file": str(tmp_path / "none")}}),
        FakeHost("cut", BARE.removesuffix("@@end\n"), ONE),
        FakeHost("good", BARE, {}),
    )
    assert "refused: @fake/typo: serv: there is no such section. Did you mean `serve`?" in run.output
    assert "refused: @fake/no-key: access.api_key_file:" in run.output
    assert "probe: its answer broke off." in run.output
    assert [run.kinds(host) for host in ("typo", "no-key", "cut")] == [["probe"]] * 3
    assert run.kinds("good")[1] == "start packages"
    assert run.code == 1
