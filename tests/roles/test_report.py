"""What every deploy leaves behind on the operator's machine."""

import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from ops import report_files
from ops.chinese import translated
from plan.report import HostReport, Problem, Report, from_json
from tests import probes
from tests.roles import forked
from tests.roles.fleet import Answer, FakeHost, Run, deploy

BARE = probes.answer(probes.BARE)
ONE = {"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}}
KEY = "a-key-that-nobody-may-see-0123"


# The state of a service, and what it told of itself when it started.
SERVES = """active 0 none
INFO Model loading took 0.95 GiB memory and 1.2 seconds
INFO GPU KV cache size: 43,520 tokens
chat answers: first token after 152.3 ms, then 31.5 tokens per second"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(runs: Path) -> Run:
    lan = {"access": {"listen": "10.44.0.0/24", "api_key_env": "BRINGUP_TEST_KEY"}}
    broken = [
        Answer(r"SubState bringup-conda", "failed"),
        Answer(r"^journalctl .*bringup-conda", "no source has the conda installer"),
    ]
    return deploy(
        FakeHost("good", BARE, ONE | lan, [Answer(r"-p ActiveState", SERVES)]),
        FakeHost("broken", BARE, ONE, broken),
        FakeHost("refused", probes.answer(probes.CONTAINER), ONE),
        FakeHost("cut", BARE.removesuffix("@@end\n"), ONE),
        BRINGUP_RUNS=str(runs),
        BRINGUP_TEST_KEY=KEY,
    )


@pytest.fixture(scope="module")
def hosts(run: Run, runs: Path) -> dict[str, HostReport]:
    read = from_json((runs / "latest" / "report.json").read_text())
    return {host.name.removeprefix("@fake/"): host for host in read.hosts}


def test_hosts_named_on_the_command_line_are_the_inventory_of_the_report(tmp_path: Path) -> None:
    refused = FakeHost("one", probes.answer(probes.CONTAINER))
    (tmp_path / "hosts.json").write_text(json.dumps({f"@fake/{n}": asdict(refused) for n in ("one", "two")}))
    variables = os.environ | {"BRINGUP_RUNS": str(tmp_path)}
    named = "@fake/one,@fake/two"
    forked.run(
        [str(tmp_path), "-y", "--config", "config.py", named, "deploy.py"], variables, timeout_seconds=60
    )
    read = from_json((tmp_path / "latest" / "report.json").read_text())
    assert read.inventory == named


def test_the_run_ends_by_naming_its_report(run: Run, runs: Path) -> None:
    page = re.findall(r"^Report: (.+)$", run.output, re.MULTILINE)
    assert len(page) == 1 and Path(page[0]).is_file()
    assert (runs / "latest").resolve() == Path(page[0]).parent.resolve()


def test_every_host_has_its_outcome(hosts: dict[str, HostReport]) -> None:
    outcomes = {name: host.outcome for name, host in hosts.items()}
    assert outcomes == {"good": "changed", "broken": "failed", "refused": "refused", "cut": "failed"}


def test_a_refusal_stands_there_as_it_was_told(hosts: dict[str, HostReport]) -> None:
    assert "systemd does not run here" in hosts["refused"].problems[0].sentence


def test_a_failure_has_its_last_words(hosts: dict[str, HostReport]) -> None:
    (problem,) = hosts["broken"].problems
    assert problem.sentence.startswith("installing conda: failed after")
    assert "no source has the conda installer" in problem.detail
    assert [step.name for step in hosts["broken"].steps if step.outcome == "failed"] == ["Install conda"]


def test_a_plan_stands_there_with_its_reasons(hosts: dict[str, HostReport]) -> None:
    vllm = next(row for row in hosts["good"].plan if row.part == "vllm")
    assert vllm.planned and "release" in vllm.because


def test_what_was_done_has_its_times(hosts: dict[str, HostReport]) -> None:
    steps = {step.name: step for step in hosts["good"].eventful}
    assert {"Install vLLM", "Serve the model", "Write down what this host now is"} <= set(steps)
    assert 0 <= steps["Install vLLM"].start_seconds <= steps["Serve the model"].start_seconds


def test_what_a_started_service_told_of_itself_is_measured(hosts: dict[str, HostReport]) -> None:
    planned, *told = hosts["good"].figures
    assert planned.what == "memory of the service" and planned.predicted and planned.measured is None
    measured = {figure.what: figure.measured for figure in told}
    assert measured == {
        "memory of the weights": 0.95,
        "KV cache": 43520.0,
        "time to the first token": 152.3,
        "tokens per second": 31.5,
    }


def test_the_key_is_in_no_report(run: Run, runs: Path) -> None:
    for path in (runs / "latest").iterdir():
        assert KEY not in path.read_text()


def test_a_dry_run_leaves_none(tmp_path: Path) -> None:
    deploy(FakeHost("good", BARE, ONE), options=("--dry",), BRINGUP_RUNS=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_written_harms_neither_the_run_nor_its_json(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file, not a folder")
    run = deploy(FakeHost("good", BARE, ONE), options=("-y", "--json"), BRINGUP_RUNS=str(tmp_path / "runs"))
    told, _ = json.JSONDecoder().raw_decode(run.output[run.output.index("\n{") + 1 :])
    assert told["results"]["operations"]
    assert run.code == 0
    assert "The report could not be written" in run.output


def of_latest(runs: Path) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code that stands in the newest report, and each host's outcome and first problem."""
    read = from_json((runs / "latest" / "report.json").read_text())
    hosts = {
        host.name.removeprefix("@fake/"): (host.outcome, host.problems[0].sentence) for host in read.hosts
    }
    return read.exit_code, hosts


def test_a_run_in_which_all_hosts_are_refused_is_reported(tmp_path: Path) -> None:
    run = deploy(FakeHost("refused", probes.answer(probes.CONTAINER), ONE), BRINGUP_RUNS=str(tmp_path))
    code, hosts = of_latest(tmp_path)
    assert (run.code, code, hosts["refused"][0]) == (1, 1, "refused")


def test_a_run_that_reaches_no_host_is_reported(tmp_path: Path) -> None:
    away = [("away", {"ssh_hostname": "127.0.0.1", "ssh_port": 1, "ssh_user": "nobody"})]
    (tmp_path / "hosts.json").write_text("{}")
    (tmp_path / "fleet.py").write_text(f"fleet = {away!r}\n")
    runs = tmp_path / "runs"
    code, output = forked.run(
        [str(tmp_path), "-y", str(tmp_path / "fleet.py"), "deploy.py"],
        os.environ | {"BRINGUP_RUNS": str(runs)},
        timeout_seconds=300,
    )
    assert code == 1, output
    told, hosts = of_latest(runs)
    assert told == 1
    outcome, sentence = hosts["away"]
    assert outcome == "unreachable"
    assert sentence.startswith("could not be reached: ") and "Try `pyinfra " in sentence


def test_other_commands_of_pyinfra_leave_no_report(tmp_path: Path) -> None:
    (tmp_path / "hosts.json").write_text("{}")
    (tmp_path / "fleet.py").write_text("fleet = [('away', {'ssh_hostname': '127.0.0.1', 'ssh_port': 1})]\n")
    runs = tmp_path / "runs"
    command = [str(tmp_path), "-y", str(tmp_path / "fleet.py"), "exec", "--", "true"]
    forked.run(command, os.environ | {"BRINGUP_RUNS": str(runs)}, timeout_seconds=300)
    assert not runs.exists()


class TestThePage:
    @pytest.fixture
    def page(self, run: Run, runs: Path) -> str:
        return (runs / "latest" / "report.html").read_text()

    def test_fetches_nothing(self, page: str) -> None:
        assert not re.search(r"<(link|img|iframe|script[^>]* src)|@import|url\(", page)

    def test_speaks_both_languages(self, page: str) -> None:
        assert "What was done" in page and "执行过程" in page

    def test_quotes_what_hosts_say(self) -> None:
        problem = Problem("</div><script>alert(1)</script>", "<b>")
        made = Report(
            "verify", "1", "2026-11-22T00:00:00+00:00", 1.0, "<i>", (HostReport("a", "failed", (problem,)),)
        )
        text = report_files.html(made)
        assert "<script>alert" not in text and "&lt;script&gt;alert" in text and "<i>" not in text

    def test_two_runs_of_one_second_have_a_folder_each(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(report_files.VARIABLE, str(tmp_path))
        made = Report("verify", "1", "2026-11-22T00:00:00+00:00", 1.0, "x", ())
        assert report_files.write(made) != report_files.write(made)


def test_every_operation_has_its_name_in_chinese() -> None:
    roles = Path(__file__).parents[2] / "roles"
    texts = [path.read_text() for path in roles.rglob("*.py")]
    named = {name for text in texts for name in re.findall(r'[( ]name="([A-Z][^"]*)"', text)}
    assert named
    assert [name for name in sorted(named) if not translated(name)] == []
