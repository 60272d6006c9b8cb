"""The one stack that works, or what stands in its way."""

from dataclasses import replace
from typing import Any

import pytest

from plan import compat, models
from plan.answer import Decision, Machine, Refusal, Wish
from plan.gpus import from_driver, lookup
from plan.resolve import decide

GEMMA = models.lookup("google/gemma-2-2b-it")


def host(*names: str, **fields: Any) -> Machine:
    """A host with these GPUs; Ubuntu 22.04 unless said otherwise."""
    return Machine(gpus=tuple(lookup(name) for name in names), **({"os": "ubuntu22.04"} | fields))


def decided(machine: Machine, **wish: Any) -> Decision:
    answer = decide(machine, Wish(**({"manage_driver": machine.driver is None} | wish)))
    assert isinstance(answer, Decision), answer
    return answer


def refused(machine: Machine, **wish: Any) -> Refusal:
    answer = decide(machine, Wish(**({"manage_driver": machine.driver is None} | wish)))
    assert isinstance(answer, Refusal), answer
    return answer


class TestPolicy:
    def test_native_is_the_newest_stack_no_newer_than_the_drivers_cuda(self) -> None:
        # the tutorial's example: the driver says 12.2, so the CUDA 12.1 build
        answer = decided(host("L40S", driver="535.104.05"), policy="native")
        assert (answer.cuda_tag, answer.torch, answer.vllm) == ("cu121", "2.5.1+cu121", "0.7.3")
        assert answer.torch_index == "https://download.pytorch.org/whl/cu121"
        assert (answer.python, answer.transformers) == ("3.12", "4.49.0")

    def test_compatible_goes_to_the_end_of_the_major(self) -> None:
        answer = decided(host("L40S", driver="535.104.05"))
        assert (answer.cuda_tag, answer.vllm, answer.torch_index) == ("cu128", "0.19.1", None)

    def test_native_without_a_stack_old_enough_names_the_policy_and_the_fix(self) -> None:
        answer = refused(host("L40", driver="525.147.05"), policy="native")
        assert "policy native" in answer.failed[0].constraint
        assert "CUDA 12.0" in answer.failed[0].fact
        assert answer.fixes[0] == "Use policy compatible."


class TestDriverAndCuda:
    def test_driver_550_is_not_offered_cuda_13(self) -> None:
        answer = decided(host("A100 80GB", driver="550.127.05"), prefer="newest")
        assert answer.cuda_tag is not None and answer.cuda_tag.startswith("cu12")

    def test_a_driver_below_cuda_12_serves_no_vllm(self) -> None:
        answer = refused(host("A100 80GB", driver="515.105.01"))
        assert "525.60.13" in answer.failed[0].fact
        assert "Let driver branch 595 with open modules be installed." in answer.fixes

    def test_blackwell_takes_only_what_its_driver_can_compile(self) -> None:
        # the attention kernels for it are PTX: 570 brings CUDA 12.8, 0.12 was built with 12.9
        assert decided(host("RTX 5090", driver="570.124.06")).vllm == "0.11.2"
        assert decided(host("RTX 5090", driver="575.57.08")).vllm == "0.19.1"

    def test_blackwell_is_not_given_cuda_12_builds_with_tritons_new_assembler(self) -> None:
        answer = refused(host("B200", driver="575.57.08"), vllm="0.31.0+cu129")
        assert any("Triton" in failure.constraint for failure in answer.failed)

    @pytest.mark.parametrize(("vllm", "torch"), [("0.19.1", "2.10.0+cu126"), ("0.11.2", "2.9.0+cu126")])
    def test_kernels_are_not_given_a_cuda_runtime_older_than_their_own(self, vllm: str, torch: str) -> None:
        answer = refused(host("L4", driver="580.95.05"), vllm=vllm, torch=torch)
        assert answer.fixes[0] == f"Use torch {torch.removesuffix('+cu126')}."

    def test_hopper_below_the_build_cuda_gets_the_newest_without_ptx(self) -> None:
        answer = decided(host("H100", driver="535.161.07"))
        assert (answer.vllm, answer.warnings) == (
            "0.8.5.post1",
            ("Support of driver branch 535 ended in 2026-06.",),
        )

    def test_hopper_with_newest_is_warned_of_kernels_that_fail_at_start(self) -> None:
        answer = decided(host("H100", driver="550.127.05"), vllm="0.11.2")
        assert any("vllm#31700" in warning for warning in answer.warnings)

    def test_marlin_on_hopper_below_the_build_cuda_is_refused(self) -> None:
        machine = host("H100", driver="550.127.05")
        answer = refused(machine, vllm="0.19.1", model="Qwen/Qwen2.5-7B-Instruct-AWQ")
        assert "Marlin kernels for compute capability 9.0" in answer.failed[0].fact

    def test_a_good_driver_is_kept_although_it_could_be_changed(self) -> None:
        answer = decided(host("L40S", driver="535.104.05"), manage_driver=True)
        assert answer.driver and (answer.driver.action, answer.driver.version) == ("keep", "535.104.05")

    def test_newest_changes_a_driver_that_holds_vllm_back(self) -> None:
        answer = decided(host("L40S", driver="535.104.05"), manage_driver=True, prefer="newest")
        assert answer.driver and answer.driver.action == "install"
        assert answer.vllm == "0.32.0"


class TestGpus:
    @pytest.mark.parametrize(
        ("gpu", "vllm"),
        [
            ("V100 32GB", "0.8.5.post1"),
            ("T4", "0.32.0"),
            ("A10", "0.32.0"),
            ("L4", "0.32.0"),
            ("H200", "0.32.0"),
        ],
    )
    def test_a_bare_host_gets_what_its_generation_can_run(self, gpu: str, vllm: str) -> None:
        assert decided(host(gpu)).vllm == vllm

    def test_turing_skips_the_releases_whose_triton_fails_there(self) -> None:
        answer = refused(host("T4", driver="580.95.05"), vllm="0.9.2")
        assert "Triton 3.3" in answer.failed[0].fact and "triton#6698" in answer.failed[0].source

    def test_pascal_is_refused_and_ollama_named(self) -> None:
        answer = refused(host("GTX 1080 Ti"))
        assert "machine code for every GPU" in answer.failed[0].constraint
        assert answer.fixes == ("Serve with Ollama.",)

    def test_turing_and_volta_compute_in_half(self) -> None:
        assert decided(host("T4")).flags["dtype"] == "half"
        assert "dtype" not in decided(host("L4")).flags

    def test_a_model_that_is_unstable_in_half_is_refused_where_there_is_nothing_else(self) -> None:
        answer = decide(host("T4"), Wish(model="google/gemma-2-2b-it", manage_driver=True), GEMMA)
        assert isinstance(answer, Refusal)
        assert answer.failed[0].constraint == "Gemma2ForCausalLM does not run in float16"
        assert decide(host("L4"), Wish(model="google/gemma-2-2b-it", manage_driver=True), GEMMA).ok

    def test_bfloat16_is_refused_where_there_is_none(self) -> None:
        answer = refused(host("T4"), dtype="bfloat16")
        assert answer.failed[0].constraint == "dtype bfloat16"
        assert answer.fixes[0] == "Let the dtype be decided."

    def test_a_newer_card_is_decided_from_what_its_driver_reports(self) -> None:
        card = from_driver(
            name="NVIDIA B400", pci_device_id="10de:3fff", memory_mib=294912, compute_capability="10.4"
        )
        answer = decided(Machine(gpus=(card,), driver="610.43.02", os="ubuntu24.04", driver_works=True))
        assert answer.vllm == "0.32.0"
        assert any("not in the catalogue" in warning for warning in answer.warnings)

    def test_a_mixed_host_gets_what_serves_every_gpu(self) -> None:
        mixed = decided(host("V100 32GB", "A100 80GB"))
        assert mixed.vllm == "0.8.5.post1"
        assert mixed.driver and (mixed.driver.branch, mixed.driver.modules) == (580, "proprietary")

    def test_volta_beside_blackwell_is_refused_with_the_reason(self) -> None:
        answer = refused(host("V100 32GB", "RTX 5090"))
        assert "needs the proprietary kernel modules" in answer.failed[0].fact
        assert answer.fixes == ("Use the RTX 5090 alone.", "Use the V100 SXM2 32GB alone.")

    def test_a_gpu_that_is_cut_by_mig_is_refused(self) -> None:
        machine = host("A100 80GB", driver="580.95.05")
        cut = replace(machine, gpus=tuple(replace(gpu, mig=True) for gpu in machine.gpus))
        answer = refused(cut)
        assert answer.fixes == ("Switch MIG off (nvidia-smi -mig 0).",)

    def test_an_assumed_memory_size_is_said(self) -> None:
        assert any("16 GB is assumed" in warning for warning in decided(host("V100")).warnings)


class TestSystem:
    @pytest.mark.parametrize(
        ("os", "vllm"),
        [("rhel8", "0.21.0"), ("ubuntu20.04", "0.32.0"), ("rhel9", "0.32.0"), ("kylin10", "0.21.0")],
    )
    def test_the_c_library_bounds_vllm(self, os: str, vllm: str) -> None:
        assert decided(host("A10", os=os)).vllm == vllm

    def test_rhel_9_cannot_load_wheels_tagged_for_a_newer_c_library(self) -> None:
        answer = refused(host("A10", os="rhel9", driver="580.95.05"), vllm="0.20.2")
        assert answer.failed[0].constraint == "vLLM 0.20.2 needs glibc 2.35"
        assert "0.32.0" in answer.fixes[0]

    def test_experts_need_a_newer_c_library_than_dense_models(self) -> None:
        machine = host("A100 80GB", "A100 80GB", os="rhel8", driver="535.104.05")
        assert decided(machine, model="Qwen/Qwen3-8B").vllm == "0.11.2"
        assert decided(machine, model="Qwen/Qwen3-30B-A3B").vllm == "0.8.5.post1"

    def test_an_unknown_c_library_is_said(self) -> None:
        answer = decided(host("L4", os=None))
        assert "The host's C library is not known and was not checked." in answer.warnings

    def test_a_system_without_a_driver_repository_is_said(self) -> None:
        answer = decided(host("L4", os="openeuler22.03"))
        assert any("openeuler22.03" in warning and "runfile" in warning for warning in answer.warnings)

    def test_aarch64_gets_cuda_13_or_nothing(self) -> None:
        grace = host("GH200", architecture="aarch64")
        assert decided(grace).cuda_tag == "cu130"
        answer = refused(replace(grace, driver="550.127.05"))
        assert "CPU build" in answer.failed[0].fact or "580.65.06" in answer.failed[0].fact


class TestPins:
    def test_a_pin_that_runs_is_honoured(self) -> None:
        answer = decided(host("L40S", driver="535.104.05"), vllm="0.8.5", python="3.11")
        assert (answer.vllm, answer.torch, answer.python) == ("0.8.5", "2.6.0", "3.11")

    def test_a_python_that_vllm_does_not_resolve_for_is_refused_with_the_smallest_change(self) -> None:
        answer = refused(host("L40S", driver="535.104.05"), vllm="0.8.5", python="3.13")
        assert answer.failed[0].constraint == "Python 3.13"
        assert answer.fixes[0] == "Use Python 3.12."

    def test_a_vllm_that_the_driver_cannot_run_is_refused_with_both_ways_out(self) -> None:
        answer = refused(host("L40S", driver="535.104.05"), vllm="0.32.0")
        assert answer.fixes == (
            "Use vLLM 0.19.1.",
            "Let driver branch 595 with open modules be installed.",
        )

    def test_a_release_that_the_index_cannot_complete_is_refused(self) -> None:
        answer = refused(host("L40S"), vllm="0.33.0")
        assert "certifi>=2026.10.19" in answer.failed[0].fact
        assert answer.fixes == ("Use vLLM 0.32.0.",)

    def test_an_unknown_release_names_its_neighbours(self) -> None:
        answer = refused(host("L40S"), vllm="0.7.9")
        assert "0.7.3 and 0.8.0" in answer.failed[0].fact

    def test_torch_is_vllms_own_or_refused(self) -> None:
        answer = refused(host("L40S"), vllm="0.32.0", torch="2.14.0")
        assert answer.failed[0].fact == "vLLM 0.32.0 is built for torch 2.13.0"

    def test_a_torch_pin_alone_finds_the_vllm_that_is_built_for_it(self) -> None:
        assert decided(host("L40S"), torch="2.9.0").vllm == "0.13.0"

    def test_what_is_not_verified_is_chosen_only_when_asked_for_and_then_said(self) -> None:
        machine = host("L40S", driver="550.127.05")
        assert decided(machine).warnings == ("Support of driver branch 550 has ended.",)
        newest = decided(machine, prefer="newest")
        assert newest.vllm == "0.31.0+cu129"
        assert newest.vllm_index == "https://wheels.vllm.ai/0.31.0/cu129"
        assert any("not verified" in warning for warning in newest.warnings)


class TestModels:
    def test_a_model_newer_than_the_drivers_vllm_is_refused(self) -> None:
        machine = host("L40S", driver="535.104.05")
        answer = refused(machine, model="Qwen/Qwen3-8B", vllm="0.8.3")
        assert answer.failed[0].fact == "Qwen3 came with vLLM 0.8.4"

    def test_the_weights_decide_how_many_gpus(self) -> None:
        machine = host(*["H100"] * 8)
        answer = decided(machine, model="Qwen/Qwen2.5-72B-Instruct")
        assert answer.memory and answer.flags["tensor_parallel_size"] == 4
        assert answer.memory.max_model_len == 32768

    def test_a_model_that_does_not_fit_names_what_would(self) -> None:
        answer = refused(host("H100"), model="Qwen/Qwen2.5-72B-Instruct")
        assert "135.43 GiB of weights" in answer.failed[0].fact
        assert answer.fixes[0] == "Choose Qwen/Qwen2.5-72B-Instruct-AWQ."
        assert "Use 2 x H100 SXM5 80GB." in answer.fixes

    def test_a_context_that_does_not_fit_is_cut_or_refused_when_asked_for(self) -> None:
        machine = host("RTX 4090", driver="580.95.05")
        cut = decided(machine, model="Qwen/Qwen2.5-7B-Instruct-AWQ")
        assert cut.memory and cut.memory.max_model_len == 32768
        answer = refused(machine, model="Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8", max_model_len=32768)
        assert any("context of" in fix for fix in answer.fixes)

    def test_a_context_beyond_the_models_positions_is_refused(self) -> None:
        answer = refused(host("H200"), model="Qwen/Qwen3-8B", max_model_len=200000)
        assert answer.failed[0].fact == "Qwen/Qwen3-8B has 40960 positions"

    def test_a_model_of_no_table_is_decided_without_its_memory_and_says_so(self) -> None:
        answer = decided(host("L40S"), model="someone/else")
        assert answer.memory is None
        assert any("memory was not checked" in warning for warning in answer.warnings)

    def test_float32_takes_twice_the_memory(self) -> None:
        half = decided(host("L40S"), model="Qwen/Qwen2.5-7B-Instruct")
        single = decided(host("L40S"), model="Qwen/Qwen2.5-7B-Instruct", dtype="float32")
        assert half.memory and single.memory
        assert single.memory.weights_gib == pytest.approx(2 * half.memory.weights_gib, rel=0.01)
        assert single.memory.kv_tokens < half.memory.kv_tokens / 2

    def test_a_quantization_that_the_gpu_cannot_run_is_refused(self) -> None:
        answer = refused(host("V100 32GB"), model="Qwen/Qwen2.5-7B-Instruct-AWQ")
        assert "runs awq from 7.5 on" in answer.failed[0].constraint


def test_every_pin_has_a_reason_with_a_source() -> None:
    answer = decided(host("L40S", "L40S"), model="Qwen/Qwen2.5-7B-Instruct")
    subjects = {reason.subject for reason in answer.why}
    expected = {"gpu", "driver", "cuda", "torch", "vllm", "python", "transformers", "memory"}
    assert expected | {"accelerate", "modelscope"} == subjects
    assert all(reason.because and reason.source for reason in answer.why)


def test_the_reason_of_vllm_names_what_stands_against_the_next_newer() -> None:
    answer = decided(host("L40S", driver="535.104.05"))
    (reason,) = [reason for reason in answer.why if reason.subject == "vllm"]
    assert "0.20.0" in reason.because and "580.65.06" in reason.because


def test_a_cpu_wheel_is_never_given_to_a_gpu() -> None:
    assert refused(host("L40S"), vllm="0.32.0+cpu").failed


def test_every_release_that_is_not_blocked_can_be_had_by_some_host() -> None:
    cards, drivers = ("L40S", "H100", "V100 32GB"), ("535.104.05", "580.95.05", "595.58.03")
    for release, row in compat.vllms().items():
        answers = [
            decide(host(card, driver=driver), Wish(vllm=release, manage_driver=False))
            for card in cards
            for driver in drivers
        ]
        assert any(answer.ok for answer in answers) is not bool(row.blocked), release


@pytest.mark.parametrize(("gpu", "proposed"), [("RTX 3090", False), ("RTX 4090", True)])
def test_an_fp8_cache_is_proposed_where_the_card_has_fp8_itself(gpu: str, proposed: bool) -> None:
    fixes = refused(host(gpu), model="Qwen/Qwen2.5-7B", max_model_len=131072).fixes
    assert ("Keep the KV cache in fp8 (kv_cache_dtype)." in fixes) is proposed


def test_float32_takes_no_more_of_the_disk() -> None:
    fits = [
        decided(host("L40S"), model="Qwen/Qwen2.5-7B-Instruct", dtype=dtype).memory
        for dtype in (None, "float32")
    ]
    assert fits[0] and fits[1]
    assert fits[1].weights_gib > 1.9 * fits[0].weights_gib
    assert fits[1].disk_gib == fits[0].disk_gib
