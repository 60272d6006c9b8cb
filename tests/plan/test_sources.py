"""Where things come from: a preset, the settings over it, and an operator's own lock file."""

from pathlib import Path
from typing import Any

import pytest

from plan import sources
from plan.answer import Decision, Machine, Wish
from plan.errors import SettingsError
from plan.resolve import decide
from plan.sections import Sources

CPU = decide(Machine(glibc="2.36", memory_gib=24.0, cpu_cores=2), Wish())
URL = "https://mirror.example/conda/linux-64/python-3.12.11-h9e4cc4f_0_cpython.conda"
HASH = "sha256:" + "ab" * 32


def addresses(**changed: Any) -> sources.Addresses:
    assert isinstance(CPU, Decision)
    return sources.addresses(Sources(**changed), CPU)


class TestAddresses:
    def test_by_default_leave_the_package_index_to_the_tools(self) -> None:
        assert addresses().wheels is None
        assert addresses().conda_channel == "https://conda.anaconda.org/conda-forge"

    def test_of_torch_and_vllm_for_cpus_are_indexes_that_alone_may_provide_them(self) -> None:
        only_from = addresses().only_from
        assert only_from["torch"] == "https://download.pytorch.org/whl/cpu"
        assert only_from["vllm"].startswith("https://wheels.vllm.ai/")
        assert only_from["vllm"].endswith("/cpu")

    def test_of_the_china_preset_replace_those_that_have_a_mirror(self) -> None:
        china = addresses(preset="china")
        assert china.wheels == "https://pypi.tuna.tsinghua.edu.cn/simple"
        assert china.only_from["torch"] == "https://mirrors.nju.edu.cn/pytorch/whl/cpu"
        assert china.only_from["vllm"] == addresses().only_from["vllm"]

    def test_of_the_settings_win_over_the_preset_without_a_doubled_slash(self) -> None:
        own = addresses(
            preset="china", torch="https://wheels.example/torch/", wheels="https://w.example/simple/"
        )
        assert own.only_from["torch"] == "https://wheels.example/torch/cpu"
        assert own.wheels == "https://w.example/simple"

    def test_of_wheels_of_ones_own_provide_torch_and_vllm_too(self) -> None:
        own = addresses(wheels_links=["https://wheels.example/page/"])
        assert own.only_from == {}
        assert own.wheels_links == ("https://wheels.example/page/",)

    def test_of_wheels_of_ones_own_do_not_hide_an_index_that_is_set(self) -> None:
        own = addresses(wheels_links=["https://wheels.example/page"], torch="https://torch.example")
        assert set(own.only_from) == {"torch", "torchvision", "torchaudio"}
        assert set(own.only_from.values()) == {"https://torch.example/cpu"}

    def test_of_models_are_modelscope_unless_set(self) -> None:
        assert sources.models_endpoint(Sources()) == "https://www.modelscope.cn"
        assert sources.models_endpoint(Sources(models="https://hub.example/")) == "https://hub.example"


class TestTheInstaller:
    def test_of_a_mirror_falls_back_to_its_origin_with_the_same_hash(self) -> None:
        origin = sources.installer(Sources(), "x86_64")
        mirrored = sources.installer(Sources(preset="china"), "x86_64")
        assert len(origin.urls) == 1
        assert mirrored.urls[1:] == origin.urls
        assert mirrored.sha256 == origin.sha256

    def test_of_the_settings_is_the_only_one_asked(self) -> None:
        url = "https://files.example/Miniforge3.sh"
        own = sources.installer(Sources(conda_installer=url, conda_installer_sha256="ab" * 32), "x86_64")
        assert (own.urls, own.sha256) == ((url,), "ab" * 32)

    def test_differs_by_architecture(self) -> None:
        assert sources.installer(Sources(), "aarch64").sha256 != sources.installer(Sources(), "x86_64").sha256


class TestALockFile:
    def lock(self, tmp_path: Path, *lines: str) -> str:
        path = tmp_path / "explicit.txt"
        path.write_text("\n".join(lines) + "\n")
        return sources.explicit_lock(str(path), "3.12", "x86_64", "https://unused.example")

    def test_of_the_operator_is_taken_as_it_is(self, tmp_path: Path) -> None:
        text = self.lock(tmp_path, "# platform: linux-64", "@EXPLICIT", f"{URL}#{HASH}")
        assert sources.records(text) == {"python-3.12.11-h9e4cc4f_0_cpython"}

    def test_that_is_missing_is_refused(self) -> None:
        with pytest.raises(SettingsError) as refused:
            sources.explicit_lock("/nowhere/lock.txt", "3.12", "x86_64", "https://unused.example")
        assert refused.value.sentences == [
            "environment.lock_file: /nowhere/lock.txt: No such file or directory. Correct the path."
        ]

    def test_that_is_no_explicit_lock_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError) as refused:
            self.lock(tmp_path, "name: serve", "dependencies: [python]")
        assert refused.value.sentences == [
            f"environment.lock_file: {tmp_path}/explicit.txt is no explicit conda lock: it lacks @EXPLICIT."
        ]

    @pytest.mark.parametrize(
        "line", [URL, f"{URL}#", f"{URL}#sha256:xyz", f"{URL}#{HASH}; reboot", "python=3.12"]
    )
    def test_with_a_line_that_has_no_hash_is_refused(self, tmp_path: Path, line: str) -> None:
        with pytest.raises(SettingsError) as refused:
            self.lock(tmp_path, "@EXPLICIT", f"{URL}#{HASH}", line)
        assert refused.value.sentences == [
            f"environment.lock_file: {tmp_path}/explicit.txt: {line!r} is no URL with a hash (URL#sha256)."
        ]

    def test_built_in_has_a_record_for_every_package(self) -> None:
        text = sources.explicit_lock(None, "3.12", "x86_64", "https://conda.example/forge")
        lines = [line for line in text.splitlines() if line.startswith("https://conda.example/forge/")]
        assert len(sources.records(text)) == len(lines) > 10
        assert not [record for record in sources.records(text) if record.endswith((".conda", ".bz2"))]
