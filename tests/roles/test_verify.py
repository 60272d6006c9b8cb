"""The checks' own judgement, on what a host might answer."""

import dataclasses

import pytest

from plan import settings
from plan.decide import plan_host
from plan.host import HostPlan
from plan.probe import Disk, parse
from tests import probes
from tests.verify import generate, health
from tests.verify.evidence import Evidence, script

PROBE = parse(probes.answer(probes.BARE))
PREFIX = "/opt/bringup/conda/envs/serve"
NOW = 1_760_000_000.0


@pytest.fixture(scope="module")
def plan() -> HostPlan:
    return plan_host(
        "gpu-1", settings.read([{"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}}]), PROBE
    )


def fronted() -> HostPlan:
    lan = {"access": {"listen": "10.44.0.0/24", "api_key_env": "X"}}
    model = {"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}}
    return plan_host("gpu-1", settings.read([lan | model]), PROBE)


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


def test_a_boot_partition_is_small_and_no_trouble_until_no_kernel_fits() -> None:
    disks = {"/": Disk("/dev/vda2", 90.0), "/boot": Disk("/dev/vda1", 0.3)}
    assert list(health.disks(dataclasses.replace(PROBE, disks=disks))) == []
    full = disks | {"/boot": Disk("/dev/vda1", 0.05)}
    (sentence,) = health.disks(dataclasses.replace(PROBE, disks=full))
    assert sentence.startswith("/dev/vda1 (at /boot) has 0.05 GiB free")


def test_an_expired_certificate_is_told_where_clients_see_it() -> None:
    own, given = "/etc/bringup/gateway/own-certificate.pem", "/etc/bringup/gateway/given-certificate.pem"
    there = Evidence({"certificates": [f"no {given} Jan 1 2019", f"no {own} Jan 1 2020"]})
    plan = fronted().gateway
    assert plan
    (sentence,) = health.certificates(plan, there)
    assert sentence.startswith(f"{own} has expired (Jan 1 2020)")
    assert not list(health.certificates(dataclasses.replace(plan, certificate="none"), there))
    assert not list(health.certificates(None, there))


class TestGeneratingWithoutAServer:
    """It takes what the services leave free, and says what there is no room for."""

    def test_splits_over_the_freest_gpus(self) -> None:
        gpus = generate.free_gpus("0, 500, 81559\n1, 80000, 81559\n2, 79000, 81559\n")
        assert [index for _, _, index in generate.place("vllm", 15.0, 2, gpus, 200.0)] == ["1", "2"]

    def test_is_skipped_where_services_hold_the_gpus(self) -> None:
        with pytest.raises(generate.SkippedError, match=r"in use: 0\.5 GiB free, 18\.2 needed"):
            generate.place("vllm", 15.0, 1, generate.free_gpus("0, 512, 81559"), 200.0)

    def test_of_transformers_goes_to_the_cpu_then_if_the_host_has_the_memory(self) -> None:
        gpus = generate.free_gpus("0, 512, 81559")
        assert generate.place("transformers", 15.0, 1, gpus, 200.0) == []
        with pytest.raises(generate.SkippedError, match=r"10\.0 GiB of memory are free"):
            generate.place("transformers", 15.0, 1, gpus, 10.0)
        with pytest.raises(generate.SkippedError, match="too much for the CPU"):
            generate.place("transformers", 150.0, 1, gpus, 2000.0)

    def test_reads_the_kernels_estimate_of_free_memory(self) -> None:
        assert generate.free_host_gib("MemTotal: 99 kB\nMemAvailable:    2097152 kB\n") == 2.0

    def test_that_ends_without_a_word_is_a_failure_with_its_last_words(self) -> None:
        blocks = {"generated vllm /srv/models/m": ["Traceback", "Segmentation fault"]}
        told = Evidence(blocks).generated("vllm", "/srv/models/m")
        assert told == {"outcome": "failed", "cause": "it ended: Traceback Segmentation fault"}

    def test_is_gathered_on_request_alone(self, plan: HostPlan) -> None:
        (service,) = plan.services
        assert "generate vllm" not in script(plan)
        for engine in ("vllm", "transformers"):
            assert f"generate {engine} {PREFIX} {service.model.directory} " in script(plan, deep=True)


def test_the_exposure_of_a_unit_is_read_from_systemds_summary() -> None:
    line = "→ Overall exposure level for vllm-chat.service: 2.3 OK 🙂"
    assert Evidence({"security vllm-chat.service": [line]}).exposure("vllm-chat.service") == 2.3
    assert Evidence({"security x.service": []}).exposure("x.service") is None


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

    def test_that_the_front_holds_are_its_own(self) -> None:
        plan = fronted()
        (service,) = plan.services
        line = f'{service.address}:8000 0.0.0.0:* users:(("nginx",pid=5,fd=6),("nginx",pid=4,fd=6))'
        seen = listening(line)
        known = Evidence({**seen.blocks, "processes bringup-gateway.service": ["4 0", "5 99"]})
        assert list(health.strangers(plan, known)) == []
        (sentence,) = health.strangers(plan, seen)
        assert "together with bringup-gateway.service" in sentence

    def test_on_one_address_with_a_second_server_are_told(self, plan: HostPlan) -> None:
        """Both ask the kernel for it, as vLLM did for long, and each gets half of the requests."""
        second = '127.0.0.1:8000 0.0.0.0:* users:(("vllm",pid=7,fd=3))'
        (sentence,) = health.strangers(
            plan, listening(second, SERVER, ours=(SERVICE, "7 vllm 0::/user.slice/session-1.scope"))
        )
        assert sentence == (
            "vllm (pid 7) listens on 127.0.0.1 port 8000, together with vllm-chat.service, and takes its "
            "requests. Stop it."
        )

    def test_that_another_program_took_while_a_service_stood_still_are_told(self, plan: HostPlan) -> None:
        seen = listening(SERVER.replace("pid=9", "pid=7"), ours=("7 vllm 0::/user.slice/session-1.scope",))
        stopped = Evidence({**seen.blocks, "unit vllm-chat.service": ["ActiveState=inactive"]})
        (sentence,) = health.strangers(plan, stopped)
        assert sentence == (
            "vllm (pid 7) listens on 127.0.0.1 port 8000, which service chat cannot have. "
            "Stop it, and deploy again."
        )
        assert list(health.taken(plan, stopped)) == ["vllm-chat.service"]
        assert list(health.taken(plan, listening(SERVER, ours=(SERVICE,)))) == []

    def test_that_a_second_server_shares_are_told(self, plan: HostPlan) -> None:
        second = '127.0.0.2:8000 0.0.0.0:* users:(("vllm",pid=7,fd=3))'
        (sentence,) = health.strangers(
            plan, listening(SERVER, second, ours=(SERVICE, "7 vllm 0::/system.slice/vllm-other.service"))
        )
        assert sentence.startswith("vllm (pid 7) listens on 127.0.0.2 port 8000 beside vllm-chat.service")
