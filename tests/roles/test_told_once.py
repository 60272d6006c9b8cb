"""What several checks stumble over is told in one sentence: a run of the real checks over sabotaged hosts.

The hosts have a card and a driver that is kept as planned, and answer with texts.
"""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import pytest

from ops.chinese import translated
from ops.stamp import settings_digest
from ops.version import version
from plan import settings, stamp
from plan.decide import plan_host
from plan.probe import parse
from plan.report import HostReport, from_json
from tests.probes import with_block
from tests.roles.test_nvidia import BUILT, INSTALLED, KERNEL, SMI, probed

REPOSITORY = Path(__file__).parents[2]
RELEASE, NEWER = "595.71.05", "6.8.0-99-generic"
DRIVEN = SMI.replace("<persistence_mode>Disabled", "<persistence_mode>Enabled")
DIRECTORIES = ("/etc/bringup", "/opt/bringup", "/opt/bringup/downloads")
WANTED = settings.read([{}])


def host(
    *packages: str,
    kernel: str = KERNEL,
    kernels: tuple[str, ...] = (BUILT,),
    driver: str = RELEASE,
    smi: str = DRIVEN,
) -> str:
    """What the probe prints on a T4 whose deploy came to its end while KERNEL ran."""
    modules = "nvidia" if driver else ""
    text = probed(*(packages or INSTALLED), kernel=kernels[0], driver=driver, modules=modules)
    daemon = ("Id=nvidia-persistenced.service", "ActiveState=active", "UnitFileState=enabled")
    base = plan_host("gpu", WANTED, parse(text)).base_packages
    blocks = {
        "kernel": (kernel, "x86_64"),
        "pci": ("0000:00:1e.0 0x10de 0x1eb8 0x030200",),
        "smi": smi.splitlines(),
        "kernels": kernels,
        "boot": (f"link /boot/vmlinuz-{kernel}",),
        "units": daemon,
        "paths": [f"755 root:root d {path}" for path in DIRECTORIES],
        "packages": [f"{name} ii  1.0-1" for name in base],
        "state": (f"kernel {KERNEL}", f"driver {RELEASE}", *(f"package {name} 1.0-1" for name in base)),
    }
    for name, lines in blocks.items():
        text = with_block(text, name, *lines)
    return text


def stamped() -> str:
    """The block of the stamp that the deploy left."""
    plan = stamp.lasting(plan_host("gpu", WANTED, parse(host())))
    kept = stamp.Stamp(version(), "2026-11-22T10:00:00+00:00", settings_digest(WANTED), plan, {})
    return "@@stamp\n" + "".join(f"|{line}\n" for line in kept.text().splitlines())


FREE = INSTALLED[0].replace(" hi ", " ii ")
OLDER = INSTALLED[0].replace(RELEASE, "595.58.03")
SILENT = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\nexit 9"
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nexit 18"
UNBUILT = (f"{NEWER} image installed -", BUILT)
HELD_NO_MORE = r"^packages libnvidia-compute are held no more, so that any upgrade may move them"
ON_THE_BUS = ("0000:00:1e.0 0x10de 0x1eb8 0x030200", "0000:00:1f.0 0x10de 0x1eb8 0x030200")
TWO = re.sub(r"(?s)(<gpu id=.*</gpu>)", lambda gpu: gpu[1] + gpu[1].replace("00:1E.0", "00:1F.0"), DRIVEN)
# What was done to a host -> what its probe prints, and the sentences in which it is told.
SABOTAGE: dict[str, tuple[str, list[str]]] = {
    "nothing": (host(), []),
    "removed hold": (host(FREE, *INSTALLED[1:]), [HELD_NO_MORE]),
    "library of another release": (
        host(OLDER, *INSTALLED[1:], smi=MISMATCH),
        [r"^packages libnvidia-compute are missing, or of another release"],
    ),
    "new kernel without module": (
        host(kernel=NEWER, kernels=UNBUILT, driver="", smi=SILENT),
        [rf"^kernel {NEWER} has no NVIDIA module of the planned driver"],
    ),
    "module not loaded": (
        host(driver="", smi=SILENT),
        [rf"^no NVIDIA module is loaded now; it was {RELEASE}"],
    ),
    "removed directory": (
        host().replace("755 root:root d /opt/bringup/downloads\n", ""),
        [r"^there is no /opt/bringup/downloads\. Deploy again, and look at the host where"],
    ),
    "a GPU off the bus": (
        with_block(host(), "pci", *ON_THE_BUS),
        [r"^GPU 0000:00:1f\.0: nvidia-smi does not show it"],
    ),
    "a GPU more": (
        with_block(host(smi=TWO), "pci", *ON_THE_BUS),
        [r"^the host has 2 GPUs, and had 1 at the deploy: cards were put in or taken out"],
    ),
    "a driver that does not answer": (
        host(smi=MISMATCH),
        [rf"^the driver of 1 GPUs does not answer: Driver {RELEASE} is loaded, and nvidia-smi fails: "],
    ),
    "removed hold and package": (
        with_block(host(FREE, *INSTALLED[1:]), "packages", "ca-certificates ii  1.0-1", "curl ii  1.0-1"),
        [r"^package libnuma1 1\.0-1 was removed", HELD_NO_MORE],
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run of the checks over all hosts leaves behind."""
    folder = tmp_path_factory.mktemp("verify")
    done = verify(folder, {name: (text, collected()) for name, (text, _) in SABOTAGE.items()})
    assert done.returncode == 1, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


def collected() -> str:
    """What the collection prints on a host whose deploy came to its end."""
    return f"@@host\n{stamped()}@@end\n"


def verify(
    folder: Path, answers: Mapping[str, tuple[str, str] | None], *options: str
) -> subprocess.CompletedProcess[str]:
    """The checks over hosts that answer with these texts, or cannot be reached."""
    (folder / "answers.json").write_text(json.dumps(answers))
    (folder / "fleet.py").write_text(f"fleet = {[(name, {}) for name in answers]!r}\n")
    command = ("-m", "pytest", "-q", "-p", "tests.roles.answering", "-p", "no:cacheprovider", "tests/verify")
    given = {
        "BRINGUP_TEST_ANSWERS": str(folder / "answers.json"),
        "BRINGUP_TEST_TRIPS": str(folder / "trips.json"),
        "BRINGUP_RUNS": str(folder),
    }
    inventory = ("--inventory", str(folder / "fleet.py"), f"--junitxml={folder / 'junit.xml'}")
    return subprocess.run(
        [sys.executable, *command, *inventory, *options],
        cwd=REPOSITORY,
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def junit(folder: Path) -> ElementTree.Element:
    return ElementTree.parse(folder / "junit.xml").getroot()


@pytest.fixture(scope="module")
def reported(folder: Path) -> Mapping[str, HostReport]:
    return {host.name: host for host in from_json((folder / "latest" / "report.json").read_text()).hosts}


@pytest.mark.parametrize("how", SABOTAGE)
def test_each_trouble_is_told_in_one_sentence(reported: Mapping[str, HostReport], how: str) -> None:
    told = [problem.sentence for problem in reported[how].problems]
    wanted = SABOTAGE[how][1]
    assert len(told) == len(wanted), told
    for sentence, pattern in zip(told, wanted, strict=True):
        assert re.search(pattern, sentence), told
        assert re.search(r"[^.]\. [A-Z].+\.$", sentence), f"{sentence} has no fix"
        assert translated(sentence), f"{sentence} is not told in Chinese"


def test_hosts_are_asked_side_by_side_and_twice_however_many_checks_they_have(folder: Path) -> None:
    assert json.loads((folder / "trips.json").read_text()) == dict.fromkeys(SABOTAGE, 2)


def test_every_check_has_its_sentence_in_the_junit_file(junit: ElementTree.Element) -> None:
    cases = junit.findall(".//testcase")
    found = [case.find(".//property[@name='check']") for case in cases]
    sentences = [said.get("value") for said in found if said is not None]
    assert len(sentences) == len(cases)
    assert "removed hold: no other upgrade moves the driver" in sentences


def test_one_sentence_may_stand_for_several_failed_checks(reported: Mapping[str, HostReport]) -> None:
    """Otherwise nothing above would have been brought together."""
    failed = [
        check.name for check in reported["library of another release"].checks if check.outcome == "failed"
    ]
    assert len(failed) > 1


def test_what_stands_on_a_driver_that_is_not_loaded_is_skipped_with_that_cause(
    reported: Mapping[str, HostReport],
) -> None:
    checks = {check.name: check for check in reported["module not loaded"].checks}
    for name in ("nvidia smi answers", "driver waits for nothing", "every gpu on the bus is driven"):
        assert checks[name].outcome == "skipped" and checks[name].cause, checks[name]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "No inventory given: pytest tests/verify --inventory inventories/prod.py"),
        (["--inventory", "nowhere.py"], "nowhere.py: there is no such inventory."),
    ],
    ids=["none", "away"],
)
def test_without_an_inventory_nothing_could_be_checked(arguments: list[str], sentence: str) -> None:
    command = [sys.executable, "-m", "pytest", "tests/verify", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)


def test_a_host_of_which_nothing_is_known_is_told_whatever_checks_were_chosen(tmp_path: Path) -> None:
    answers = {"well": (host(), collected()), "away": None, "left out": None, "cut": (host(), "@@host\n")}
    chosen = ("-k", "directory_has_its_owner", "--limit", "well", "--limit", "away", "--limit", "cut")
    done = verify(tmp_path, answers, *chosen)
    assert done.returncode == 2, done.stdout[-4000:]
    report = from_json((tmp_path / "latest" / "report.json").read_text())
    assert report.exit_code == 2
    assert {one.name: one.outcome for one in report.hosts} == {
        "well": "proved",
        "away": "unreachable",
        "cut": "unreachable",
    }
    for sentence in ("away: cannot be reached. Switch it on.", "cut: its answer broke off: exit 0."):
        assert done.stdout.count(sentence) == 1, done.stdout[-4000:]
