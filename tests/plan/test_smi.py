"""What the probe makes of nvidia-smi, on genuine outputs."""

from pathlib import Path

import pytest

from plan import gpus, smi
from plan.errors import ProbeError

CAPTURES = Path(__file__).with_name("captures")


def capture(name: str) -> str:
    return (CAPTURES / name).read_text()


@pytest.mark.parametrize(
    ("name", "driver", "cuda", "gpu"),
    [
        (
            "tesla-t4-v11.xml",
            "515.105.01",
            "11.7",
            ("Tesla T4", "GPU-d37e67a5-91dd-3774-a5cb-99096249601a", "10de:1eb8", 15360, "7.5", None),
        ),
        (
            "a100-sxm4-40gb-mig-v11.xml",
            "510.47.03",
            "11.6",
            (
                "NVIDIA A100-SXM4-40GB",
                "GPU-27b94a00-ed54-5c24-b1fd-1054085de32a",
                "10de:20b0",
                40960,
                "8.0",
                True,
            ),
        ),
        (
            "geforce-rtx-3080-v12.xml",
            "536.40",
            "12.2",
            (
                "NVIDIA GeForce RTX 3080",
                "GPU-19d6d965-2acc-f646-00f8-4c76979aabb4",
                "10de:2216",
                10240,
                "8.6",
                None,
            ),
        ),
        (
            "rtx-pro-6000-max-q-v13.xml",
            "590.44.01",
            "13.1",
            (
                "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
                "GPU-12345678-aaaa-bbbb-cccc-0123456789ab",
                "10de:2bb4",
                97887,
                "12.0",
                None,
            ),
        ),
        (
            "tesla-v100s-32gb-v11.xml",
            "460.73.01",
            "11.2",
            (
                "Tesla V100S-PCIE-32GB",
                "GPU-76098dc1-d3bc-9a1b-7ea6-f7b48837829e",
                "10de:1df6",
                32510,
                "7.0",
                None,
            ),
        ),
        (
            "quadro-p2000-v12.xml",
            "525.125.06",
            "12.0",
            ("Quadro P2000", "GPU-396caaed-39ca-3199-2e68-717cdb786ec6", "10de:1c30", 5120, "6.1", None),
        ),
        (
            "rtx-4000-sff-ada-v13.xml",
            "595.84",
            "13.2",
            (
                "NVIDIA RTX 4000 SFF Ada Generation",
                "GPU-37037c3f-65c8-ec4d-24a9-420204ad8026",
                "10de:27b0",
                20475,
                "8.9",
                None,
            ),
        ),
    ],
)
def test_every_schema_gives_the_same_fields(
    name: str, driver: str, cuda: str, gpu: tuple[object, ...]
) -> None:
    report = smi.parse(capture(name))
    assert (report.driver_version, report.cuda_version) == (driver, cuda)
    (found,) = report.gpus
    fields = ("name", "uuid", "pci_device_id", "memory_mib", "compute_capability", "mig")
    assert tuple(getattr(found, field) for field in fields) == gpu


@pytest.mark.parametrize(
    ("name", "count", "alike"),
    [
        ("hgx-h100-80gb-eight-v12.xml", 8, ("NVIDIA H100 80GB HBM3", "10de:2330", 81559, 551, "9.0", False)),
        ("geforce-rtx-2080-two-v13.xml", 2, ("NVIDIA GeForce RTX 2080", "10de:1e87", 8192, 406, "7.5", None)),
    ],
)
def test_every_gpu_of_a_machine_is_read(name: str, count: int, alike: tuple[object, ...]) -> None:
    found = smi.parse(capture(name)).gpus
    fields = ("name", "pci_device_id", "memory_mib", "reserved_mib", "compute_capability", "mig")
    assert [tuple(getattr(gpu, field) for field in fields) for gpu in found] == [alike] * count


def test_a_card_whose_id_was_blotted_out_is_known_by_its_name() -> None:
    (gpu,) = smi.parse(capture("a10g-v11.xml")).gpus
    assert (gpu.pci_device_id, gpu.compute_capability) == ("00de:0000", "8.6")
    known = gpus.from_driver(
        name=gpu.name,
        pci_device_id=gpu.pci_device_id,
        memory_mib=gpu.memory_mib,
        compute_capability=gpu.compute_capability,
        reserved_mib=gpu.reserved_mib,
    )
    assert (known.pci_id, known.known) == ("2237", True)


def test_a_gpu_cut_into_instances_keeps_the_memory_of_the_whole_board() -> None:
    (gpu,) = smi.parse(capture("a100-sxm4-80gb-mig-v12.xml")).gpus
    assert (gpu.memory_mib, gpu.mig) == (81920, True)


def test_what_the_driver_keeps_is_no_memory_for_cuda() -> None:
    (reported,) = smi.parse(capture("rtx-pro-6000-max-q-v13.xml")).gpus
    gpu = gpus.from_driver(
        name=reported.name,
        pci_device_id=reported.pci_device_id,
        memory_mib=reported.memory_mib,
        compute_capability=reported.compute_capability,
        reserved_mib=reported.reserved_mib,
    )
    # torch.cuda.get_device_properties says 97250 MB of this board
    assert gpu.memory_gib == pytest.approx(97250 / 1024, abs=0.01)


def test_a_driver_that_names_cuda_after_its_user_mode_part_is_read_too() -> None:
    text = capture("rtx-pro-6000-max-q-v13.xml").replace("cuda_version", "cuda_umd_version")
    assert smi.parse(text).cuda_version == "13.1"


def test_a_capability_in_the_output_wins_over_the_catalogue() -> None:
    text = capture("tesla-t4-v11.xml").replace("<serial>", "<compute_cap>7.6</compute_cap><serial>")
    assert smi.parse(text).gpus[0].compute_capability == "7.6"


def test_a_card_that_neither_the_output_nor_the_catalogue_knows_has_no_capability() -> None:
    text = capture("tesla-t4-v11.xml").replace("1EB810DE", "FFFF10DE").replace("Tesla T4", "NVIDIA X9")
    assert smi.parse(text).gpus[0].compute_capability is None


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("</gpu>", "<processes><process_name>a & <b</process_name></processes></gpu>"),
        ("</gpu>", "<supported_clocks><mem_clock>5001 MHz</supported_clocks></gpu>"),
        (
            "</nvidia_smi_log>",
            "</nvidia_smi_log>\nWARNING: infoROM is corrupted\nexit 14",
        ),
        ("<?xml", "WARNING: something before it\n<?xml"),
    ],
)
def test_what_drivers_write_badly_beside_what_is_read_is_no_matter(written: str, instead: str) -> None:
    text = capture("l4-two-v12.xml")
    assert written in text
    assert smi.parse(text.replace(written, instead, 1)) == smi.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no output of nvidia-smi"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "no output"),
        ("<html></html>", "XML of <html>"),
        ("<nvidia_smi_log></nvidia_smi_log>", "no driver version"),
        ("<nvidia_smi_log><driver_version>N/A</driver_version></nvidia_smi_log>", "no driver version"),
        ('<!DOCTYPE x [<!ENTITY e "a">]><nvidia_smi_log>&e;</nvidia_smi_log>', "declares XML entities"),
    ],
)
def test_what_is_no_output_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ProbeError) as refusal:
        smi.parse(text)
    (sentence,) = refusal.value.sentences
    assert says in sentence and "nvidia-smi -q -x" in sentence


def test_a_gpu_without_a_name_is_refused_not_guessed() -> None:
    text = capture("tesla-t4-v11.xml").replace("<product_name>Tesla T4</product_name>", "")
    with pytest.raises(ProbeError, match=r"names no product for GPU 00000000:00:1E\.0"):
        smi.parse(text)
