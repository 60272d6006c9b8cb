"""The checks' own judgement, on what a host might answer."""

import dataclasses

import pytest

from plan import settings
from plan.decide import plan_host
from plan.host import HostPlan
from plan.probe import Disk, parse
from tests import probes
from tests.verify import health
from tests.verify.evidence import Evidence

PROBE = parse(probes.answer(probes.BARE))
NOW = 1_760_000_000.0


@pytest.fixture(scope="module")
def plan() -> HostPlan:
    return plan_host(
        "gpu-1", settings.read([{"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}}]), PROBE
    )


def listening(*lines: str, ours: tuple[str, ...] = ()) -> Evidence:
    return Evidence({"listening": [f"LISTEN 0 128 {line}" for line in lines], "ours": list(ours), "end": []})


SERVER = '127.0.0.1:8000 0.0.0.0:* users:(("vllm",pid=9,fd=3))'
SERVICE = "9 vllm 0::/system.slice/vllm-chat.service"


class TestTheClock:
    @pytest.mark.parametrize("seconds", [-2, 0, 3, 40])
    def test_that_may_be_right_is_not_complained_of(self, seconds: int) -> None:
        off = health.ahead(int(NOW) + seconds, NOW, NOW + 5)
        assert list(health.clock(off)) == []

    @pytest.mark.parametrize(
        ("seconds", "words"), [(3600, "60 minutes ahead of"), (-3600, "60 minutes behind")]
    )
    def test_that_is_off_by_an_hour_is_told(self, seconds: int, words: str) -> None:
        (sentence,) = health.clock(health.ahead(int(NOW) + seconds, NOW, NOW + 5))
        assert words in sentence

    def test_that_was_not_told_is_taken_for_right(self) -> None:
        assert health.ahead(None, NOW, NOW) == 0


def test_a_full_disk_is_told_once() -> None:
    full = {path: Disk("/dev/vda", 0.2) for path in ("/", "/opt", "/srv/models")}
    (sentence,) = health.disks(dataclasses.replace(PROBE, disks=full))
    assert "/dev/vda" in sentence and "0.20 GiB free" in sentence
    assert list(health.disks(PROBE)) == []


def test_an_expired_certificate_is_told() -> None:
    lines = ["yes /etc/a.pem Jan 1 2030", "no /etc/b.pem Jan 1 2020"]
    (sentence,) = health.certificates(Evidence({"certificates": lines}))
    assert sentence.startswith("/etc/b.pem has expired (Jan 1 2020)")


class TestPorts:
    def test_of_the_plan_are_nobody_s_trouble(self, plan: HostPlan) -> None:
        assert list(health.strangers(plan, listening(SERVER, ours=(SERVICE,)))) == []

    def test_of_others_are_left_to_them(self, plan: HostPlan) -> None:
        other = '0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=1,fd=3))'
        assert list(health.strangers(plan, listening(SERVER, other, ours=(SERVICE,)))) == []

    def test_inside_a_service_on_loopback_are_its_own_affair(self, plan: HostPlan) -> None:
        inner = '127.0.0.1:41999 0.0.0.0:* users:(("VLLM::Worker",pid=10,fd=3))'
        worker = "10 VLLM::Worker 0::/system.slice/vllm-chat.service"
        assert list(health.strangers(plan, listening(SERVER, inner, ours=(SERVICE, worker)))) == []

    def test_that_ours_opens_to_others_are_told(self, plan: HostPlan) -> None:
        opened = '0.0.0.0:9999 0.0.0.0:* users:(("python",pid=7,fd=3))'
        (sentence,) = health.strangers(plan, listening(opened, ours=("7 python 0::/system.slice/x.service",)))
        assert sentence.startswith(
            "python (pid 7) is of ours, is in no plan, and listens on 0.0.0.0 port 9999"
        )

    def test_that_a_second_server_shares_are_told(self, plan: HostPlan) -> None:
        second = '127.0.0.2:8000 0.0.0.0:* users:(("vllm",pid=7,fd=3))'
        (sentence,) = health.strangers(
            plan, listening(SERVER, second, ours=(SERVICE, "7 vllm 0::/system.slice/vllm-other.service"))
        )
        assert sentence.startswith("vllm (pid 7) listens on 127.0.0.2 port 8000 beside vllm-chat.service")
