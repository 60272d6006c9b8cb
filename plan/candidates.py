"""The stacks that exist: every vLLM build with every torch build of its own pin."""

from dataclasses import dataclass
from functools import lru_cache

from plan import compat
from plan.compat import Torch, TorchBuild, Vllm, VllmBuild, version

CPU = "cpu"

# What serves longest without surprises comes first: most wheels of the field are built and tried on 3.12.
PREFERRED_PYTHONS = ("3.12", "3.11", "3.13", "3.10", "3.14", "3.9")


@dataclass(frozen=True)
class Candidate:
    """One vLLM build with one torch build."""

    vllm: Vllm
    build: VllmBuild
    torch: Torch
    torch_build: TorchBuild

    @property
    def vllm_version(self) -> str:
        """The version to install, with its variant: "0.31.0+cu129"."""
        return f"{self.vllm.version}+{self.build.variant}" if self.build.variant else self.vllm.version

    @property
    def torch_version(self) -> str:
        """The version to install; with its tag when it does not lie on the ordinary index."""
        if self.torch_build.url is None:
            return self.torch.version
        return f"{self.torch.version}+{self.torch_build.tag}"

    @property
    def newest_cuda(self) -> str:
        """The newer of the CUDA versions that vLLM and torch were built with."""
        return max(self.build.cuda, self.torch_build.cuda, key=version)

    @property
    def glibc(self) -> str:
        """The oldest C library that loads the whole closure."""
        return max(self.vllm.glibc, self.build.glibc or "0", self.torch.glibc, key=version)

    @property
    def pythons(self) -> tuple[str, ...]:
        """The Pythons that vLLM's closure resolved for and torch has wheels for, preferred first."""
        both = set(self.vllm.python) & set(self.torch.python)
        return tuple(python for python in PREFERRED_PYTHONS if python in both)


def _match(build: VllmBuild, torch: Torch, torch_build: TorchBuild) -> bool:
    """vLLM's kernels load the CUDA runtime that torch brings: of the same major, and no older than what vLLM
    was built with or is published with, whichever is older."""
    if build.variant == CPU or torch_build.tag == CPU:
        return build.variant == torch_build.tag
    if version(build.cuda).major != version(torch_build.cuda).major:
        return False
    published_with = next((row.cuda for row in torch.builds if row.url is None), build.cuda)
    oldest = min(build.cuda, published_with, key=version)
    return version(torch_build.cuda) >= version(oldest)


@lru_cache(maxsize=2)
def all_candidates(accelerator: str) -> tuple[Candidate, ...]:
    """Every stack for "cuda" or "cpu": newest vLLM first, the ordinary index first, newest CUDA first."""
    found = [
        Candidate(row, build, torch, torch_build)
        for row in compat.vllms().values()
        for build in row.builds
        for torch in (compat.torches()[row.torch],)
        for torch_build in torch.builds
        if _match(build, torch, torch_build) and (build.variant == CPU) == (accelerator == CPU)
    ]
    return tuple(sorted(found, key=_order, reverse=True))


def _order(candidate: Candidate) -> tuple[object, ...]:
    return (
        version(candidate.vllm.version),
        candidate.build.url is None,
        candidate.torch_build.url is None,
        version(candidate.torch_build.cuda or "0"),
    )
