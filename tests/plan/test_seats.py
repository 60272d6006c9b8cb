"""Several services of one host: whose GPUs, whose memory, and what cannot be."""

import dataclasses
from typing import Any

import pytest

from plan import settings
from plan.decide import plan_host
from plan.errors import PlanError
from plan.host import ServicePlan
from plan.probe import Disk, PciDevice, parse
from tests import probes

BARE = parse(probes.answer(probes.BARE))
SMALL, LARGE = "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-32B-Instruct"
TAG = {"engine": "ollama", "model": "qwen2.5:0.5b"}


def uuid(place: int) -> str:
    return f"GPU-0000000{place}-1111-2222-3333-444444444444"


def smi(count: int) -> str:
    """What nvidia-smi says of so many H100s, cut down to what is read."""
    cards = "".join(
        f"<gpu id='0000000{n}:18:00.0'><product_name>NVIDIA H100 80GB HBM3</product_name>"
        f"<uuid>{uuid(n)}</uuid><pci><pci_device_id>233010DE</pci_device_id></pci>"
        "<fb_memory_usage><total>81559 MiB</total><reserved>551 MiB</reserved></fb_memory_usage></gpu>"
        for n in range(count)
    )
    return (
        "<?xml version='1.0' ?><nvidia_smi_log><driver_version>580.65.06</driver_version>"
        f"<cuda_version>13.0</cuda_version>{cards}</nvidia_smi_log>"
    )


def host(count: int) -> Any:
    return dataclasses.replace(
        BARE,
        pci=tuple(PciDevice(f"0000:{n:02x}:00.0", "0x2330", "0x030200") for n in range(count)),
        driver="580.65.06",
        smi=smi(count),
        disks={path: Disk("disk", 4000.0) for path in BARE.disks},
    )


def planned(count: int, **services: dict[str, Any]) -> dict[str, ServicePlan]:
    plan = plan_host("gpu-1", settings.read([{"serve": services}]), host(count))
    return {service.name: service for service in plan.services}


def gpus(service: ServicePlan) -> list[int]:
    seen = service.environment["CUDA_VISIBLE_DEVICES"].split(",")
    return [int(one[11]) for one in seen]


def refusal(count: int, **services: dict[str, Any]) -> str:
    with pytest.raises(PlanError) as refused:
        planned(count, **services)
    return " ".join(refused.value.sentences)


def test_a_service_sees_its_gpus_alone_by_their_own_names() -> None:
    found = planned(2, chat={"model": SMALL, "gpus": 1})["chat"]
    assert found.environment["CUDA_VISIBLE_DEVICES"] == uuid(0)


def test_services_share_no_gpu_unless_they_say_so() -> None:
    found = planned(4, a={"model": SMALL}, b={"model": LARGE, "gpus": 2}, c={"model": SMALL})
    taken = [gpu for service in found.values() for gpu in gpus(service)]
    assert len(taken) == len(set(taken))
    assert len(gpus(found["b"])) == found["b"].flags["tensor-parallel-size"] == 2


def test_where_layers_cannot_be_split_they_go_to_the_gpus_in_stages() -> None:
    flags = planned(3, a={"model": LARGE, "gpus": 3})["a"].flags
    assert (flags["tensor-parallel-size"], flags["pipeline-parallel-size"]) == (1, 3)


def test_a_greedy_model_leaves_a_gpu_for_each_of_the_others() -> None:
    found = planned(4, a={"model": LARGE}, b={"model": SMALL})
    assert not set(gpus(found["a"])) & set(gpus(found["b"]))


def test_services_that_say_how_much_share_a_gpu() -> None:
    found = planned(
        1,
        a={"model": SMALL, "gpu_memory_utilization": 0.4},
        b={"model": SMALL, "gpu_memory_utilization": 0.4},
    )
    assert gpus(found["a"]) == gpus(found["b"]) == [0]


def test_shares_that_exceed_the_gpu_are_refused() -> None:
    half = {"model": SMALL, "gpu_memory_utilization": 0.6}
    assert refusal(1, a=half, b=half) == (
        "serve.b.gpus: wants 1, 0 of 1 GPUs are left for it (GPU 0 is serve.a's). Set `gpus` of the others "
        "lower, or let services share a GPU by setting `gpu_memory_utilization` of each so that the sum "
        "is at most 0.98."
    )


def test_more_services_than_gpus_are_refused() -> None:
    assert refusal(1, a={"model": SMALL}, b={"model": SMALL}).startswith("serve.b.gpus: wants 1, 0 of 1 GPUs")


def test_ollama_gets_the_gpus_that_vllm_leaves() -> None:
    found = planned(2, a=TAG, b={"model": SMALL, "gpus": 1})
    assert (gpus(found["b"]), gpus(found["a"])) == ([0], [1])


def test_ollama_beside_vllm_on_one_gpu_leaves_it_its_share() -> None:
    found = planned(1, a=TAG, b={"model": SMALL, "gpu_memory_utilization": 0.5})
    assert gpus(found["a"]) == [0]
    assert int(found["a"].environment["OLLAMA_GPU_OVERHEAD"]) == pytest.approx(0.5 * 79.1 * 2**30, rel=0.02)


def test_ollama_beside_vllm_is_planned_with_what_is_left_of_the_gpu() -> None:
    tag = {"engine": "ollama", "model": "qwen2.5:14b"}
    alone = planned(1, b=tag)["b"].memory
    beside = planned(1, a={"model": SMALL, "gpu_memory_utilization": 0.9}, b=tag)["b"].memory
    assert alone and beside
    assert beside.usable_gib < 0.2 * alone.usable_gib


def test_ollama_finds_no_room_beside_a_vllm_that_takes_it_all() -> None:
    assert refusal(1, a=TAG, b={"model": SMALL}).startswith("serve.a.gpus: wants 1, 0 of 1 GPUs are left")


def test_without_gpus_the_memory_of_the_host_is_shared() -> None:
    def caches(**services: dict[str, Any]) -> list[int]:
        plan = plan_host(
            "cpu", settings.read([{"serve": services}]), dataclasses.replace(BARE, memory_gib=10.0)
        )
        return [int(service.flags["kv-cache-memory-bytes"]) for service in plan.services]

    (alone,) = caches(a={"model": SMALL})
    first, second = caches(a={"model": SMALL}, b={"model": SMALL})
    assert first == alone
    assert second <= first


def test_without_gpus_what_does_not_fit_beside_the_others_is_refused() -> None:
    little = dataclasses.replace(BARE, memory_gib=4.0)
    with pytest.raises(PlanError) as refused:
        plan_host("cpu", settings.read([{"serve": {"a": {"model": SMALL}, "b": {"model": SMALL}}}]), little)
    assert refused.value.sentences[0].startswith("serve.b: a context of 512 tokens fits in the host's memory")


def test_shares_that_add_up_to_the_most_are_given_whatever_floats_make_of_it() -> None:
    shares = (0.17, 0.81)
    assert shares[0] + shares[1] > 0.98
    a, b = ({"model": SMALL, "gpu_memory_utilization": share} for share in shares)
    assert set(planned(1, a=a, b=b)) == {"a", "b"}
