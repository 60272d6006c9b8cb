"""The probe's text becomes facts; a text that is not whole or not understood is refused in one sentence."""

import dataclasses

import pytest

from plan.errors import ProbeError
from plan.model_plan import ModelPlan
from plan.models_host import recorded_pins
from plan.probe import Disk, PciDevice, Unit, canonical_name, missing_packages, parse
from plan.settings import read
from tests import probes
from tests.probes import with_block

BARE = probes.answer(probes.BARE)
CONTAINER = probes.answer(probes.CONTAINER)


class TestABareHost:
    host = parse(BARE)

    def test_has_its_system_and_hardware(self) -> None:
        assert (self.host.os, self.host.os_id, self.host.os_codename) == ("debian12", "debian", "bookworm")
        assert (self.host.architecture, self.host.glibc, self.host.systemd) == ("x86_64", "2.36", 252)
        assert (self.host.user_id, self.host.hostname, self.host.cpu_count) == (0, "bare", 2)
        assert self.host.memory_gib == pytest.approx(23.54, abs=0.01)
        assert "avx2" in self.host.cpu_flags

    def test_has_the_space_under_every_place_of_ours(self) -> None:
        assert set(self.host.disks) == {"/", "/opt", "/srv/models", "/var/lib"}
        assert self.host.disks["/opt"] == Disk("overlay", 78042236 / 2**20)

    def test_has_addresses_and_listeners(self) -> None:
        assert self.host.addresses == ("10.44.0.11",)
        assert self.host.listening == {22: "sshd (pid 36)"}

    def test_has_nothing_of_ours_and_no_gpu(self) -> None:
        assert not self.host.user_exists
        assert not (self.host.paths or self.host.units or self.host.environments or self.host.models)
        assert (self.host.gpus, self.host.driver, self.host.modules, self.host.smi) == ((), None, (), "")

    def test_has_only_the_packages_that_are_installed(self) -> None:
        assert self.host.packages == {"ca-certificates": "20250419~deb12u2"}
        removed = with_block(BARE, "packages", "curl rc  7.88.1-10", "gcc un ")
        assert parse(removed).packages == {}


class TestAServedHost:
    host = parse(probes.answer(probes.SERVED))

    def test_has_its_service_running_on_its_port(self) -> None:
        unit = self.host.units["vllm-chat.service"]
        assert (unit.active, unit.sub, unit.enabled, unit.needs_reload) == (
            "active",
            "running",
            "enabled",
            False,
        )
        assert self.host.listening[8000].startswith("vllm (pid ")

    def test_has_no_task_left_over(self) -> None:
        assert list(self.host.units) == ["vllm-chat.service"]

    def test_has_a_whole_model(self) -> None:
        (pin,) = recorded_pins(read([{"models": {"Qwen/Qwen2.5-Tiny-Instruct": {}}}]), self.host).values()
        model = ModelPlan("Qwen/Qwen2.5-Tiny-Instruct", "master", pin.place, commit=pin.commit)
        assert model.there(self.host)
        assert not dataclasses.replace(model, commit="0" * 40).there(self.host)
        assert not dataclasses.replace(model, exclude=("*.md",)).there(self.host)

    def test_has_an_environment_with_conda_records_and_distributions(self) -> None:
        serve = self.host.environments["/opt/bringup/conda/envs/serve"]
        assert [record for record in serve.conda if record.startswith("python-3.")]
        assert {"torch", "transformers", "accelerate", "modelscope", "vllm", "uv"} <= set(serve.distributions)
        assert serve.distributions["torch"].endswith("+cpu")

    def test_has_a_key_that_only_root_reads(self) -> None:
        directory, key = (self.host.paths[f"/etc/bringup/credentials{path}"] for path in ("", "/api-key.env"))
        assert (directory.mode, directory.owner, directory.kind) == ("700", "root:root", "d")
        assert (key.mode, key.owner, key.kind, len(key.sha256 or "")) == ("600", "root:root", "f", 64)

    def test_has_a_hash_of_every_file_of_ours(self) -> None:
        assert self.host.user_exists
        assert not [path for path, seen in self.host.paths.items() if (seen.kind == "f") != bool(seen.sha256)]


class TestAContainer:
    host = parse(CONTAINER)

    def test_has_no_systemd(self) -> None:
        assert (self.host.virtualization, self.host.systemd) == ("docker", None)

    def test_has_addresses_of_both_families(self) -> None:
        assert self.host.addresses == ("192.0.2.2", "fd00::2")

    def test_names_no_holder_of_a_port_that_ss_does_not_know(self) -> None:
        assert self.host.listening == {2024: "?"}


def test_listeners_are_read_from_proc_where_ss_is_missing() -> None:
    listening = with_block(
        BARE,
        "listening",
        "proc   sl  local_address rem_address   st tx_queue rx_queue tr tm->when"
        " retrnsmt   uid  timeout inode",
        "proc    0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1",
        "proc    1: 0B002C0A:0016 01002C0A:A4F2 01 00000000:00000000 02:000A27F1 00000000     0        0 2 4",
        f"proc    0: {'0' * 32}:0016 {'0' * 32}:0000 0A 00000000:00000000 00:00000000 00000000 0 0 3 1",
    )
    assert parse(listening).listening == {8000: "?", 22: "?"}


def test_every_program_that_listens_on_a_port_is_named_once() -> None:
    lines = [
        f'LISTEN 0 128 {address}:8000 0.0.0.0:* users:(("{name}",pid={pid},fd=3))'
        for address, name, pid in (("127.0.0.1", "vllm", 9), ("::1", "vllm", 9), ("127.0.0.1", "python", 7))
    ]
    found = parse(with_block(BARE, "listening", *lines)).listening
    assert found == {8000: "vllm (pid 9), python (pid 7)"}


def test_the_ports_of_our_units_are_known_while_they_stand_still() -> None:
    lines = ["18000 vllm-chat.service", "11434 ollama-small.service"]
    assert parse(with_block(BARE, "unit_ports", *lines)).unit_ports == {
        18000: "vllm-chat.service",
        11434: "ollama-small.service",
    }
    assert parse(BARE).unit_ports == {}


def test_a_gpu_is_told_apart_from_a_switch_and_an_audio_function() -> None:
    text = with_block(
        BARE,
        "pci",
        "0000:07:00.0 0x10de 0x22a3 0x068000",
        "0000:18:00.0 0x10de 0x2330 0x030200",
        "0000:41:00.0 0x10de 0x2684 0x030000",
        "0000:41:00.1 0x10de 0x22ba 0x040300",
    )
    assert parse(text).gpus == (
        PciDevice("0000:18:00.0", "0x2330", "0x030200"),
        PciDevice("0000:41:00.0", "0x2684", "0x030000"),
    )
    assert len(parse(text).pci) == 4


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6 22:20:39 UTC 2023",
            "535.54.03",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (root@host)",
            "580.65.06",
        ),
    ],
)
def test_the_driver_is_read_from_proc_where_sys_is_hidden(line: str, version: str) -> None:
    assert parse(with_block(BARE, "driver_file", line)).driver == version


def test_units_keep_systemds_own_words() -> None:
    text = with_block(
        BARE,
        "units",
        *("MainPID=512", "NRestarts=1", "Result=success", "Id=vllm-chat.service", "ActiveState=activating"),
        *("SubState=start-post", "UnitFileState=enabled", "NeedDaemonReload=yes", ""),
        *("Id=bringup-torch.service", "ActiveState=failed", "SubState=failed", "UnitFileState=transient"),
        *("Result=exit-code", "MainPID=0", "NRestarts=0", "NeedDaemonReload=no"),
    )
    units = parse(text).units
    assert units["vllm-chat.service"] == Unit("activating", "start-post", "enabled", "success", 512, 1, True)
    assert units["bringup-torch.service"].result == "exit-code"


def test_environments_hold_conda_records_and_canonical_distributions() -> None:
    text = with_block(
        BARE,
        "environments",
        *("prefix /opt/bringup/conda", "conda *.json", "dist *.dist-info"),
        *("prefix /opt/bringup/conda/envs/serve", "conda python-3.12.11-h9e4cc4f_0_cpython.json"),
        *("dist torch-2.13.0+cpu.dist-info", "dist Typing_Extensions-4.15.0.dist-info"),
    )
    environments = parse(text).environments
    assert environments["/opt/bringup/conda"].conda == frozenset()
    serve = environments["/opt/bringup/conda/envs/serve"]
    assert serve.conda == {"python-3.12.11-h9e4cc4f_0_cpython"}
    assert serve.distributions == {"torch": "2.13.0+cpu", "typing-extensions": "4.15.0"}


MODEL = (
    "directory /srv/models/a/b/master",
    'manifest {"model": "a/b", "revision": "master", '
    '"files": {"model file.bin": {"size": 7, "mtime_ns": 1700000000123456789}}}',
    "file 7 1700000000.1234567890 model file.bin",
    "file 99 1700000001.0000000000 .bringup.json",
)


class TestAModelOnDisk:
    def intact(self, *lines: str, model: str = "a/b", revision: str = "master") -> bool:
        found = parse(with_block(BARE, "models", *lines)).models
        return found["/srv/models/a/b/master"].intact(model, revision)

    def test_is_whole_when_every_file_is_as_it_was_verified(self) -> None:
        assert self.intact(*MODEL)

    @pytest.mark.parametrize(
        "file",
        [
            "file 8 1700000000.1234567890 model file.bin",
            "file 7 1700000000.1234567880 model file.bin",
            "file 7 1700000000.1234567890 other.bin",
        ],
    )
    def test_is_not_when_a_file_has_another_size_time_or_name(self, file: str) -> None:
        assert not self.intact(*MODEL[:2], file)

    def test_is_not_with_a_file_too_many_or_too_few(self) -> None:
        assert not self.intact(*MODEL, "file 1 1700000000.0 extra.bin")
        assert not self.intact(*MODEL[:2])

    def test_is_not_as_another_model_or_revision(self) -> None:
        assert not self.intact(*MODEL, model="a/c")
        assert not self.intact(*MODEL, revision="v2")

    @pytest.mark.parametrize("manifest", ["", "{", "[]", "{}", '{"model": "a/b", "revision": "master"}'])
    def test_is_not_when_its_manifest_cannot_be_read(self, manifest: str) -> None:
        assert not self.intact(MODEL[0], f"manifest {manifest}", *MODEL[2:])


@pytest.mark.parametrize("name", [probes.BARE, probes.SERVED, probes.CONTAINER])
def test_an_answer_cut_anywhere_is_refused(name: str) -> None:
    text = probes.answer(name).removesuffix("@@end\n")
    for length in range(0, len(text), 97):
        with pytest.raises(ProbeError) as refused:
            parse(text[:length])
        assert refused.value.sentences == [
            "probe: its answer broke off. Run again; if it stays, run with -vvv."
        ]


@pytest.mark.parametrize("block", ["identity", "kernel", "memory", "disk", "cpu"])
def test_an_answer_without_what_no_host_lacks_is_refused_and_nothing_invented(block: str) -> None:
    with pytest.raises(ProbeError) as refused:
        parse(with_block(BARE, block, "gibberish"))
    assert refused.value.sentences[0].startswith("probe: its answer has an unknown form")
    assert refused.value.sentences[0].endswith("Report it.")


@pytest.mark.parametrize(
    ("release", "name"),
    [
        (("ID=ubuntu", 'VERSION_ID="22.04"'), "ubuntu22.04"),
        (('ID="rocky"', 'VERSION_ID="9.4"'), "rhel9"),
        (('ID="openEuler"', 'VERSION_ID="22.03"'), "openeuler22.03"),
    ],
)
def test_systems_are_named_as_the_tables_name_them(release: tuple[str, ...], name: str) -> None:
    assert parse(with_block(BARE, "os", *release)).os == name


def test_two_answers_of_one_host_are_equal_whatever_their_text() -> None:
    assert parse(BARE) == dataclasses.replace(parse(BARE), text="")
    assert canonical_name("Ruamel.YAML_clib") == "ruamel-yaml-clib"


def test_a_package_under_another_name_is_not_missing() -> None:
    assert missing_packages(["curl", "tar"], {"curl-minimal": "7.76"}) == ["tar"]


def test_every_process_that_shares_a_port_holds_it() -> None:
    line = 'LISTEN 0 2048 127.0.0.1:18000 0.0.0.0:* users:(("vllm",pid=12,fd=3),("vllm",pid=9,fd=3))'
    there = parse(with_block(BARE, "listening", line))
    assert there.listening == {18000: "vllm (pid 12) (pid 9)"}
