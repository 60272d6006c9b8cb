"""The conda environment of a host: its packages, each at a version, and where they come from."""

from collections.abc import Iterator, Mapping

from plan import packages, sources
from plan.answer import Decision
from plan.errors import PlanError
from plan.host import EnvironmentPlan
from plan.probe import Probe, plain_name, same_version
from plan.sections import Settings

CERTIFICATES = {
    "apt": "/etc/ssl/certs/ca-certificates.crt",
    "dnf": "/etc/pki/tls/certs/ca-bundle.crt",
}


def plan_environment(settings: Settings, stack: Decision, probe: Probe, manager: str) -> EnvironmentPlan:
    """The environment of a stack.

    Raises:
        PlanError: the operator's packages stand against it.
    """
    wish = settings.environment
    python = stack.python or "3.12"
    addresses = sources.addresses(settings.sources, stack)
    installer = sources.installer(settings.sources, probe.architecture)
    lock = sources.explicit_lock(wish.lock_file, python, probe.architecture, addresses.conda_channel)
    torch = {"torch": stack.torch, "transformers": stack.transformers, "accelerate": stack.accelerate}
    on_vllm = any(service.engine == "vllm" for service in settings.serve.values())
    extra = dict(pin.split("==") for pin in wish.packages)
    named = {plain_name(name) for name in extra}
    pins: dict[str, dict[str, str]] = {
        "models": {"modelscope": packages.modelscope()},
        "torch": {name: version for name, version in torch.items() if version and name not in named} | extra,
        "vllm": {"vllm": stack.vllm} if stack.vllm and on_vllm else {},
    }
    if pins["vllm"] and "torch" in addresses.only_from:
        # uv looks at an index of their own for direct requirements only
        family = (name for name in sources.TORCH_FAMILY if name in stack.pins)
        pins["vllm"] |= {name: f"{stack.pins[name]}+{stack.cuda_tag}" for name in family}
    if problems := list(_against(extra, stack, pins)):
        raise PlanError(problems)
    return EnvironmentPlan(
        name=wish.name,
        python=python,
        installer_urls=installer.urls,
        installer_sha256=installer.sha256,
        explicit_lock=lock,
        records=sources.records(lock),
        uv=packages.uv(probe.architecture),
        pins=pins,
        constraints=_constraints(stack, pins),
        only_from=addresses.only_from,
        addresses=addresses,
        certificates=CERTIFICATES[manager],
    )


def _against(
    extra: Mapping[str, str], stack: Decision, pins: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    """Packages of the operator's at another version than what the plan is built around; extras are free."""
    own = {**pins["models"], **pins["vllm"], **({"torch": stack.torch} if stack.torch else {})}
    fixes = {"torch": "Set environment.torch", "vllm": "Set serve.NAME.vllm"}
    for pin, version in extra.items():
        name = plain_name(pin)
        if name in own and not same_version(own[name], version):
            fix = f"{fixes[name]} instead" if name in fixes else "Leave it out"
            yield f"environment.packages: {pin}=={version}: {name} {own[name]} is planned. {fix}."


def _constraints(stack: Decision, pins: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What the closure of this vLLM was when it was new: later releases of these have broken old servers."""
    own = {plain_name(name) for part in pins.values() for name in part}
    return {name: version for name, version in stack.pins.items() if plain_name(name) not in own}
