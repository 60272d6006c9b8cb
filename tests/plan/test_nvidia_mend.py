"""What is done about GPUs that ail: a reset, a reboot, a sentence; and nothing twice in a row."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from plan import gpu_health, settings, show, tables
from plan.decide import plan_host
from plan.errors import PlanError
from plan.host import HostPlan
from plan.nvidia_plan import Mending
from plan.probe import Probe
from plan.probe_driver import InstalledDriver, Kernel, Package
from tests.plan.test_nvidia import KERNEL, machine

CAPTURES = Path(__file__).parent / "captures"
ADDRESS = "0000:00:1e.0"
GPU = "GPU-d37e67a5-91dd-3774-a5cb-99096249601a"
BEFORE = "00000000-0000-4000-8000-00000000beef"
T4 = (CAPTURES / "tesla-t4-v11.xml").read_text()
REMAP = "<remapped_rows><remapped_row_pending>Yes</remapped_row_pending></remapped_rows></gpu>"
PENDING = T4.replace("</gpu>", REMAP)


# drivers before 570 have another element, as the capture of two L4 has it
REQUIRED = T4.replace(
    "</gpu>",
    "<gpu_reset_status><reset_required>Yes</reset_required><drain_and_reset_recommended>N/A"
    "</drain_and_reset_recommended></gpu_reset_status></gpu>",
)


def xid(code: int, words: str = "pid=1187, name=python") -> str:
    return f"NVRM: Xid (PCI:{ADDRESS[:-2]}): {code}, {words}"


def recovery(action: str) -> str:
    """What a driver from 570 on says: the element as the capture of an RTX 4000 SFF Ada has it."""
    return T4.replace("</gpu>", f"<gpu_recovery_action>{action}</gpu_recovery_action></gpu>")


def ailing(smi: str = T4, log: tuple[str, ...] = (), holders: tuple[str, ...] = (), **changes: Any) -> Probe:
    """A T4 whose driver packages brought, built, held and loaded."""
    packages = {
        name: Package("hi", "580.95.05-1") for name in ("nvidia-kernel-open-dkms", "nvidia-driver-cuda")
    }
    kernel = Kernel(KERNEL, True, "installed", "580.95.05")
    driver = InstalledDriver(packages, (kernel,), KERNEL, flavour="open", log=log, **changes)
    probe = machine(driver="580.95.05", modules=("nvidia",), smi=smi.replace("515.105.01", "580.95.05"))
    pci = (dataclasses.replace(probe.pci[0], address=ADDRESS),)
    return dataclasses.replace(probe, nvidia=driver, pci=pci, gpu_holders=holders)


def plan(probe: Probe, **driver: Any) -> HostPlan:
    return plan_host("gpu-1", settings.read([{"driver": driver}]), probe)


def mending(probe: Probe, **driver: Any) -> Mending:
    return plan(probe, **driver).driver.mending


def warned(probe: Probe, **driver: Any) -> str:
    return " ".join(plan(probe, **driver).warnings)


class TestAReset:
    @pytest.mark.parametrize(
        ("probe", "because"),
        [
            (ailing(PENDING), "faulty memory waits to be taken out of use"),
            (ailing(log=(xid(48),)), "Xid 48: an uncorrectable memory error"),
            (ailing(log=(xid(119),)), "Xid 119: the GPU's own processor does not answer"),
            (ailing(recovery("Reset")), "the driver asks for 'Reset'"),
            (ailing(recovery("Drain and Reset")), "the driver asks for 'Drain and Reset'"),
            (ailing(REQUIRED), "the driver asks for a reset"),
        ],
        ids=["remap", "xid 48", "xid 119", "recovery", "drain", "required"],
    )
    def test_follows_from_what_the_driver_or_the_kernel_says(self, probe: Probe, because: str) -> None:
        found = mending(probe)
        assert (found.reset, found.reboot) == ((GPU,), ())
        assert found.because == f"GPU {ADDRESS}: {because}"

    def test_is_shown_before_it_is_done(self) -> None:
        rows = list(show.rows(plan(ailing(PENDING))))
        because = f"GPU {ADDRESS}: faulty memory waits to be taken out of use"
        assert ("gpus", "resets 1, its services stopped", because) in rows

    def test_is_not_what_a_programs_own_fault_asks_for(self) -> None:
        for code in (13, 31, 43, 45, 63, 94, 999):
            probe = ailing(log=(xid(code),))
            assert mending(probe) == Mending()
            assert f"The kernel logged Xid {code} since boot" in warned(probe)

    def test_is_not_needed_where_the_driver_itself_says_that_nothing_is(self) -> None:
        for smi in (recovery("None"), REQUIRED.replace("Yes", "No")):
            assert mending(ailing(smi, log=(xid(48),))) == Mending()

    def test_settles_what_was_logged_before_it(self) -> None:
        was_reset = f"bringup has reset GPU 0000{ADDRESS} of nvidia"
        probe = ailing(log=(xid(48), was_reset), reset=frozenset({GPU}))
        assert mending(probe, reboot="allowed") == Mending()
        assert "Xid" not in warned(probe)

    def test_is_not_done_under_a_program_that_is_none_of_ours(self) -> None:
        theirs = ailing(PENDING, holders=("812 python3 0::/user.slice/user-1000.slice",))
        assert mending(theirs, reboot="allowed") == Mending()
        assert "GPUs that wait to be mended are in use by 812 python3. Stop that, and run again." in warned(
            theirs
        )
        ours = ailing(PENDING, holders=("9 VLLM::Worker 0::/system.slice/vllm-chat.service",))
        assert mending(ours).reset == (GPU,)

    def test_waits_for_the_drivers_own_work(self) -> None:
        probe = dataclasses.replace(ailing(PENDING), driver="580.65.06")
        assert plan(probe).driver.work.start == "reload"
        assert mending(probe) == Mending()

    def test_is_the_operators_to_forbid(self) -> None:
        assert mending(ailing(PENDING), reset="never") == Mending()
        assert mending(ailing(PENDING), managed=False) == Mending()
        assert "It has to be reset, or its host rebooted." in warned(ailing(PENDING), reset="never")


class TestAReboot:
    tried = ailing(PENDING, reset=frozenset({GPU}))

    def test_follows_a_reset_that_did_not_help_where_it_is_allowed(self) -> None:
        assert mending(self.tried, reboot="allowed").reboot == (GPU,)
        assert mending(self.tried) == Mending()
        assert "A reset did not help. Reboot the host; if it stays, have the card looked at." in warned(
            self.tried
        )

    def test_is_what_a_lost_card_needs(self) -> None:
        for probe in (ailing(recovery("Reboot")), ailing(log=(xid(79),))):
            assert mending(probe, reboot="allowed").reboot == (GPU,)
            assert mending(probe) == Mending()
            assert "Reboot the host" in warned(probe)

    def test_of_which_the_driver_speaks_in_xid_154(self) -> None:
        said = xid(154, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)")
        assert mending(ailing(log=(said,)), reboot="allowed").reboot == (GPU,)
        reset = said.replace("0x2 (Node Reboot Required)", "0x1 (GPU Reset Required)")
        assert mending(ailing(log=(reset,))).reset == (GPU,)

    def test_that_did_not_help_is_not_repeated(self) -> None:
        probe = ailing(PENDING, rebooted_for=((BEFORE, GPU),))
        assert mending(probe, reboot="allowed") == Mending()
        assert "A reboot did not help. Have the card looked at." in warned(probe)

    def test_that_has_helped_is_forgotten_though_its_own_run_was_cut(self) -> None:
        driver = ailing(rebooted=(BEFORE, "580.95.05"), rebooted_for=((BEFORE, GPU), (BEFORE, ADDRESS)))
        assert plan(driver).driver.forget == ("driver", ADDRESS, GPU)
        # it has not happened yet
        now = driver.boot_id
        same = ailing(rebooted=(now, "580.95.05"), rebooted_for=((now, GPU),))
        assert plan(same).driver.forget == ()

    def test_that_has_not_helped_is_remembered(self) -> None:
        for smi in (PENDING, "Unable to determine the device handle"):
            assert plan(ailing(smi, rebooted_for=((BEFORE, GPU),))).driver.forget == ()
        # the driver's own note, while the driver does not run as it shall
        idle = dataclasses.replace(ailing(rebooted=(BEFORE, "580.95.05")), driver=None, smi="")
        assert plan(idle).driver.forget == ()

    def test_does_not_help_memory_that_is_beyond_repair(self) -> None:
        failed = ailing(PENDING.replace("row_pending", "row_failure"))
        assert mending(failed, reboot="allowed") == Mending()
        assert "faulty memory could not be taken out of use. Have the card looked at." in warned(failed)


class TestGpusThatAreCut:
    smi = (CAPTURES / "a100-sxm4-80gb-mig-v12.xml").read_text()

    def cut(self, **changes: Any) -> Probe:
        return dataclasses.replace(ailing(), smi=self.smi.replace("535.54.03", "580.95.05"), **changes)

    def test_are_made_whole_where_the_settings_say_so(self) -> None:
        found = plan(self.cut(), mig="off")
        assert found.hardware == "1 x A100 SXM4 80GB"
        assert found.driver.mending.whole == gpu_health.cut(self.cut())
        assert ("gpus", "makes 1 whole (MIG off)", "its services stop meanwhile") in show.rows(found)

    def test_are_not_taken_from_who_uses_them(self) -> None:
        with pytest.raises(PlanError) as refused:
            plan(self.cut(gpu_holders=("812 python3 0::/user.slice",)), mig="off")
        assert refused.value.sentences == [
            "driver.mig: is off, and GPUs that are cut into instances are in use by 812 python3. "
            "Stop that, and run again."
        ]


def test_every_xid_has_its_remedy_and_where_that_is_from() -> None:
    rows = tables.read("xids")["xid"]
    assert len({row["code"] for row in rows}) == len(rows)
    for row in rows:
        assert row["remedy"] in ("application", "none", "reset", "reboot", "look")
        assert row["source"] and row["bucket"] and row["meaning"]
        # NVIDIA's own word decides, except where its workflow ends in one
        if row["bucket"] in ("RESET_GPU", "RESTART_BM", "RESTART_APP"):
            expected = {"RESET_GPU": "reset", "RESTART_BM": "reboot", "RESTART_APP": "application"}
            assert row["remedy"] == expected[row["bucket"]]
