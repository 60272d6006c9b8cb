"""What each kind of host gets, or the one sentence (setting, fact, fix) that says why it gets nothing."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from plan import settings, smi
from plan.decide import plan_host
from plan.errors import PlanError
from plan.host import HostPlan
from plan.probe import Disk, InstalledEnvironment, PciDevice, Probe, Unit, parse
from plan.probe_gateway import InstalledGateway
from plan.probe_models import InstalledModel
from tests import probes

BARE = parse(probes.answer(probes.BARE))
SXM = PciDevice("0000:18:00.0", "0x2330", "0x030200")
SWITCH = PciDevice("0000:07:00.0", "0x22a3", "0x068000")
H100 = dataclasses.replace(BARE, pci=(SXM, SWITCH), driver="580.65.06", modules=("nvidia",))
SMALL, LARGE = "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-72B-Instruct"
ONE = {"serve": {"chat": {"model": SMALL}}}


def planned(probe: Probe, *layers: dict[str, Any]) -> HostPlan:
    return plan_host("gpu-1", settings.read(layers), probe)


def refusals(probe: Probe, *layers: dict[str, Any]) -> list[str]:
    with pytest.raises(PlanError) as refused:
        planned(probe, *layers)
    return refused.value.sentences


class TestAHostWithoutAGpu:
    plan = planned(BARE, ONE)

    def test_gets_cpu_builds_of_torch_and_vllm(self) -> None:
        assert self.plan.environment
        pins = self.plan.environment.pins
        assert pins["torch"]["torch"].endswith("+cpu")
        assert pins["vllm"]["vllm"].endswith("+cpu")
        assert pins["vllm"]["torchvision"].endswith("+cpu")
        assert set(self.plan.environment.only_from) == {"torch", "torchvision", "torchaudio", "vllm"}
        assert (self.plan.accelerator, self.plan.driver.summary) == ("cpu", "none needed")

    def test_gets_every_pin_exactly(self) -> None:
        assert self.plan.environment
        versions = [v for part in self.plan.environment.pins.values() for v in part.values()]
        assert versions
        assert all(version[0].isdigit() for version in versions)

    def test_holds_what_the_pins_bring_along_to_releases_of_their_time(self) -> None:
        assert self.plan.environment
        held = self.plan.environment.constraints
        assert "huggingface-hub" in held
        pinned = {name for part in self.plan.environment.pins.values() for name in part}
        assert not pinned & set(held)

    def test_keeps_gloo_from_the_first_address_that_it_finds(self) -> None:
        assert self.plan.services[0].environment["VLLM_HOST_IP"] == "127.0.0.1"


class TestAHostWhoseDriverSuffices:
    plan = planned(H100, ONE)

    def test_keeps_its_driver(self) -> None:
        assert self.plan.driver.summary == "580.65.06 (kept)"

    def test_gets_cuda_builds_from_the_ordinary_index(self) -> None:
        assert (self.plan.accelerator, self.plan.hardware) == ("cuda", "1 x H100 SXM5 80GB")
        assert self.plan.environment
        assert "+cpu" not in str(self.plan.environment.pins)

    def test_counts_its_gpus_and_not_its_switches(self) -> None:
        two = dataclasses.replace(H100, pci=(SXM, dataclasses.replace(SXM, address="0000:2a:00.0"), SWITCH))
        assert planned(two, ONE).hardware == "2 x H100 SXM5 80GB"

    def test_has_longer_to_start_the_larger_the_model(self) -> None:
        eight = dataclasses.replace(
            H100,
            pci=tuple(dataclasses.replace(SXM, address=f"0000:{n}8:00.0") for n in range(8)),
            disks={**H100.disks, "/srv/models": Disk("/dev/nvme0n1", 900.0)},
        )
        large = planned(eight, {"serve": {"chat": {"model": LARGE}}})
        assert large.services[0].start_timeout_seconds > self.plan.services[0].start_timeout_seconds + 1000


def test_what_shares_a_disk_shares_its_room() -> None:
    one = dataclasses.replace(H100, disks={path: Disk("/dev/sda1", 31.0) for path in H100.disks})
    (sentence,) = refusals(one, {"serve": {"chat": {"model": "Qwen/Qwen2.5-14B-Instruct"}}})
    assert sentence == (
        "disk: /opt and /srv/models are one disk with 31.0 GiB free, the environment needs 16 and the models "
        "28. Make room there."
    )


def test_a_model_larger_than_the_disk_is_refused_before_its_first_byte() -> None:
    full = dataclasses.replace(H100, disks={**H100.disks, "/srv/models": Disk("/dev/sdb", 3.0)})
    (sentence,) = refusals(full, {"serve": {"chat": {"model": "Qwen/Qwen2.5-7B-Instruct"}}})
    assert sentence == "disk: /srv/models has 3.0 GiB free, the models need 14. Make room there."


def test_what_a_cut_download_or_another_commit_has_needs_no_room_again() -> None:
    model = "Qwen/Qwen2.5-7B-Instruct"
    wish = {"serve": {"chat": {"model": model}}}
    full = dataclasses.replace(H100, disks={**H100.disks, "/srv/models": Disk("/dev/sdb", 10.0)})
    assert refusals(full, wish)
    staging = planned(H100, wish).models[0].staging
    assert planned(dataclasses.replace(full, model_parts={staging: 6.0}), wish)
    assert refusals(dataclasses.replace(full, model_parts={staging: 2.0}), wish) == [
        "disk: /srv/models has 10.0 GiB free, the models need 12. Make room there."
    ]
    other = InstalledModel({"model": model, "commit": "a" * 40}, {"w": (14 << 30, 1), "README.md": (1, 1)})
    assert planned(dataclasses.replace(full, models={f"/srv/models/{model}/{'a' * 40}": other}), wish)


def test_an_older_driver_gets_an_older_stack_not_a_new_cuda() -> None:
    old = planned(dataclasses.replace(H100, driver="550.54.15"), ONE).environment
    new = planned(H100, ONE).environment
    assert old and new
    assert Version(old.pins["torch"]["torch"]) < Version(new.pins["torch"]["torch"])
    assert old.digest != new.digest


class TestTheGround:
    def test_must_be_reached_as_root(self) -> None:
        assert refusals(dataclasses.replace(BARE, user_id=1000), ONE) == [
            "ssh_user: is not root. Set `_sudo = True` in the inventory, or log in as root."
        ]

    def test_must_be_of_an_architecture_with_wheels(self) -> None:
        assert refusals(dataclasses.replace(BARE, architecture="riscv64"), ONE) == [
            "host: its CPU is riscv64, and wheels exist for x86_64 and aarch64. Use another host."
        ]

    def test_must_be_of_a_known_family(self) -> None:
        arch = dataclasses.replace(BARE, os_id="arch", os_like=(), os_name="Arch Linux")
        assert refusals(arch, ONE) == [
            "host: Arch Linux is not known here. Use a Debian, Ubuntu or RHEL family system."
        ]

    def test_must_run_systemd(self) -> None:
        assert refusals(parse(probes.answer(probes.CONTAINER)), ONE) == [
            "host: systemd does not run here, and services need it. Use a host or container with systemd."
        ]

    def test_is_refused_with_everything_that_is_wrong_at_once(self) -> None:
        wrong = dataclasses.replace(BARE, user_id=1000, architecture="riscv64", systemd=None)
        assert len(refusals(wrong, ONE)) == 3

    @pytest.mark.parametrize(
        ("os_id", "os_like", "manager"),
        [
            ("ubuntu", ("debian",), "apt"),
            ("linuxmint", ("ubuntu", "debian"), "apt"),
            ("rocky", ("rhel", "centos", "fedora"), "dnf"),
        ],
    )
    def test_names_its_own_package_manager_and_certificates(
        self, os_id: str, os_like: tuple[str, ...], manager: str
    ) -> None:
        plan = planned(dataclasses.replace(BARE, os_id=os_id, os_like=os_like), ONE)
        assert plan.environment
        assert plan.package_manager == manager
        assert ("/etc/pki/" in plan.environment.certificates) == (manager == "dnf")
        assert ("numactl-libs" in plan.base_packages) == (manager == "dnf")

    def test_needs_room_for_the_environment_that_is_not_there_yet(self) -> None:
        full = dataclasses.replace(BARE, disks=dict(BARE.disks) | {"/opt": Disk("/dev/sda1", 3.2)})
        assert refusals(full, ONE) == [
            "disk: /opt has 3.2 GiB free, the environment needs 5. Make room there."
        ]
        environment = planned(BARE, ONE).environment
        assert environment
        installed = {environment.prefix: InstalledEnvironment(frozenset(), {})}
        assert planned(dataclasses.replace(full, environments=installed), ONE).services


class TestGpusAndDrivers:
    def test_a_gpu_that_nobody_knows_is_refused_with_its_address(self) -> None:
        unknown = dataclasses.replace(BARE, pci=(PciDevice("0000:18:00.0", "0xffff", "0x030200"),))
        (sentence,) = refusals(unknown, ONE)
        assert sentence.startswith("GPU 0000:18:00.0: PCI id 10de:ffff is not in the catalogue.")

    def test_a_model_that_does_not_fit_is_refused_with_its_service_and_figures(self) -> None:
        (sentence, *_) = refusals(H100, {"serve": {"big": {"model": LARGE}}})
        assert sentence.startswith("serve.big: ")
        assert "135.43 GiB of weights" in sentence
        assert "H100 SXM5 80GB" in sentence


class TestServices:
    def test_get_ports_in_order_of_names_around_those_that_are_set(self) -> None:
        both = {"model": SMALL}
        plan = planned(
            BARE, {"serve": {"c": both, "a": both | {"port": 8001}, "b": both, "d": both | {"port": 9000}}}
        )
        assert {service.name: service.port for service in plan.services} == {
            "a": 8001,
            "b": 8000,
            "c": 8002,
            "d": 9000,
        }

    def test_are_refused_a_port_that_another_program_holds(self) -> None:
        taken = dataclasses.replace(BARE, listening={8000: "nginx (pid 7)"})
        assert refusals(taken, ONE) == [
            "serve.chat.port: 8000 is taken on this host by nginx (pid 7). Set serve.chat.port to a free one."
        ]

    @pytest.mark.parametrize("state", ["active", "activating", "deactivating"])
    def test_keep_the_port_that_they_hold_themselves(self, state: str) -> None:
        unit = Unit(state, "", "enabled", "success", 9, 0, False)
        held = dataclasses.replace(BARE, listening={8000: "vllm (pid 9)"}, units={"vllm-chat.service": unit})
        assert planned(held, ONE).services[0].port == 8000

    def test_keep_the_port_that_their_front_holds_while_they_are_stopped(self) -> None:
        front, stopped = (
            Unit(state, "", "enabled", "success", 9, 0, False) for state in ("active", "inactive")
        )
        units = {"vllm-chat.service": stopped, "bringup-gateway.service": front}
        held = dataclasses.replace(
            BARE,
            listening={8000: "nginx (pid 9)"},
            units=units,
            gateway=InstalledGateway(ports=frozenset({8000})),
        )
        assert planned(held, ONE).services[0].port == 8000

    def test_on_gpus_get_the_compiler_that_makes_their_kernels(self) -> None:
        assert "g++" in planned(H100, ONE).base_packages
        assert "g++" not in planned(BARE, ONE).base_packages

    def test_with_pins_that_disagree_are_refused_both_named(self) -> None:
        half = {"model": SMALL, "gpu_memory_utilization": 0.4}
        both = {"a": half | {"vllm": "0.19.1"}, "b": half | {"vllm": "0.11.0"}}
        (sentence,) = refusals(H100, {"serve": both})
        assert sentence.startswith("serve.b: needs vLLM 0.11.0 with torch ")
        assert ", serve.a vLLM 0.19.1 with torch " in sentence
        assert sentence.endswith("a host has one environment. Pin `vllm` alike, or use two hosts.")

    def test_on_a_network_listen_on_the_hosts_own_address_in_it_behind_a_key(self) -> None:
        (service,) = planned(BARE, ONE, {"access": {"listen": "10.44.0.0/24", "api_key_env": "KEY"}}).services
        assert (service.address, service.url, service.needs_key) == (
            "10.44.0.11",
            "https://10.44.0.11:8000",
            True,
        )

    def test_on_a_network_that_the_host_is_not_in_are_refused(self) -> None:
        elsewhere = {"access": {"listen": "192.168.0.0/16", "api_key_env": "KEY"}}
        assert refusals(BARE, ONE, elsewhere) == [
            "access.listen: none of its addresses (10.44.0.11) is in 192.168.0.0/16. "
            "Correct the network, or write one address for this host."
        ]

    def test_that_are_absent_are_removed_when_they_are_there(self) -> None:
        unit = Unit("active", "running", "enabled", "success", 9, 0, False)
        there = dataclasses.replace(BARE, units={"vllm-chat.service": unit})
        absent = {"serve": {"chat": {"model": SMALL, "state": "absent"}}}
        assert planned(there, absent).removed_services == ("vllm-chat.service",)
        assert planned(BARE, absent).removed_services == ()
        assert planned(there, absent).services == ()

    def test_that_the_settings_do_not_name_are_left_alone_and_told(self) -> None:
        unit = Unit("active", "running", "enabled", "success", 9, 0, False)
        plan = planned(dataclasses.replace(BARE, units={"vllm-old.service": unit}), ONE)
        assert plan.removed_services == ()
        assert (
            "vllm-old.service is on the host and not in the settings: it is left alone. "
            "Set serve.old with `state: absent` to remove it."
        ) in plan.warnings


class TestModels:
    def test_of_services_and_of_settings_are_downloaded_once_each(self) -> None:
        plan = planned(BARE, ONE, {"models": {SMALL: {}, LARGE: {"revision": "v1"}}})
        assert [(model.model, model.revision) for model in plan.models] == [
            (SMALL, "master"),
            (LARGE, "v1"),
        ]

    def test_alone_need_no_vllm(self) -> None:
        plan = planned(BARE, {"models": {LARGE: {}}})
        assert plan.environment
        assert plan.environment.pins["vllm"] == {}

    def test_that_are_absent_are_removed_all_of_them_or_the_named_revision(self) -> None:
        there = dataclasses.replace(
            BARE,
            models={
                f"/srv/models/{LARGE}/{letter * 40}": InstalledModel(
                    {"model": LARGE, "commit": letter * 40, "revision": revision}, {}
                )
                for letter, revision in (("a", "v1"), ("b", "v2"))
            },
        )
        absent = planned(there, {"models": {LARGE: {"state": "absent"}}})
        assert absent.removed_models == (f"/srv/models/{LARGE}",)
        one = planned(there, {"models": {LARGE: {"revision": "v2", "state": "absent"}}})
        assert one.removed_models == (f"/srv/models/{LARGE}/{'b' * 40}",)
        assert planned(BARE, {"models": {LARGE: {"state": "absent"}}}).removed_models == ()


def test_a_host_without_services_or_models_gets_no_environment() -> None:
    assert planned(BARE, {}).environment is None


def test_a_model_larger_than_the_hosts_memory_is_refused_with_its_figures() -> None:
    (sentence, *_) = refusals(dataclasses.replace(BARE, memory_gib=2.0), {"serve": {"big": {"model": LARGE}}})
    assert sentence.startswith("serve.big: ")
    assert "GiB" in sentence


CAPTURES = Path(__file__).with_name("captures")


def with_driver(capture: str, **renamed: str) -> Probe:
    """A host whose nvidia-smi says what a real one said; `renamed` are words of it to replace."""
    text = (CAPTURES / f"{capture}.xml").read_text()
    for old, new in renamed.items():
        assert old in text
        text = text.replace(old, new)
    report = smi.parse(text)
    pci = tuple(
        PciDevice(f"0000:{number}8:00.0", f"0x{(gpu.pci_device_id or '').partition(':')[2]}", "0x030200")
        for number, gpu in enumerate(report.gpus)
    )
    return dataclasses.replace(BARE, pci=pci, driver=report.driver_version, smi=text)


class TestWhatNvidiaSmiSays:
    def test_names_the_cards_and_keeps_the_driver(self) -> None:
        plan = planned(with_driver("rtx-pro-6000-max-q-v13"), ONE)
        assert plan.hardware == "1 x RTX PRO 6000 Blackwell Max-Q"
        assert plan.driver.summary == "590.44.01 (kept)"

    def test_about_a_card_that_nobody_knows_is_refused_in_a_sentence(self) -> None:
        unknown = with_driver("rtx-pro-6000-max-q-v13", **{"RTX PRO 6000": "RTX PRO 9000", "2BB4": "FFF0"})
        (sentence,) = refusals(unknown, ONE)
        assert sentence.startswith("GPU NVIDIA RTX PRO 9000 ")
        assert sentence.endswith("Add the card to plan/gpus.toml.")

    def test_refuses_a_driver_that_is_too_old_and_may_not_be_changed(self) -> None:
        kept = {"driver": {"managed": False}}
        (sentence,) = refusals(with_driver("tesla-t4-v11"), ONE, kept)
        assert "needs driver 525.60.13 or newer, this one is 515.105.01" in sentence

    def test_does_not_plan_a_card_cut_into_instances_as_a_whole_one(self) -> None:
        assert refusals(with_driver("a100-sxm4-80gb-mig-v12"), ONE) == [
            "GPU NVIDIA A100-SXM4-80GB: is cut into MIG instances, which are not planned. "
            "Run `nvidia-smi -mig 0`, or set driver.mig to off."
        ]

    def test_that_cannot_be_read_is_refused_in_a_sentence(self) -> None:
        broken = dataclasses.replace(H100, smi='<?xml version="1.0" ?>\n<nvidia_smi_log>')
        (sentence,) = refusals(broken, ONE)
        assert sentence.startswith("This is no output of nvidia-smi -q -x")

    def test_about_a_driver_that_does_not_answer_leaves_the_tables_to_decide(self) -> None:
        silent = dataclasses.replace(
            H100, smi="NVIDIA-SMI has failed because it couldn't communicate\nexit 9"
        )
        assert planned(silent, ONE).hardware == "1 x H100 SXM5 80GB"
