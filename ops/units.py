"""systemd services: enabled, started once, restarted only for a reason, joined until they serve."""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand, PyinfraCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta, operation
from pyinfra.api.state import State
from pyinfra.context import host

from ops.remote import Remote, privileges
from ops.waiting import journal, say, wait
from plan.probe import Unit

# RestartSteps and RestartMaxDelaySec; an older systemd complains of them.
BACKOFF_FROM_SYSTEMD = 254


@dataclass(frozen=True)
class Service:
    """A service unit that shall run. `timeout_seconds` bounds the wait until it is active."""

    unit: str
    label: str
    timeout_seconds: int


@operation()
def serving(
    service: Service,
    seen: Mapping[str, Unit],
    because: Iterable[OperationMeta] = (),
    restart: bool = False,
    reload_because: Iterable[OperationMeta] = (),
) -> Generator[PyinfraCommand, None, None]:
    """Makes a service enabled and active; restarts it if asked, or if an operation in `because` changed.

    A change in `reload_because` alone is reloaded: what is under way goes on.
    A unit that is starting is not disturbed but joined: a run that was cut does not cost a second start.
    """
    unit = seen.get(service.unit)
    changed = restart or any(meta.changed for meta in because)
    reload = any(meta.changed for meta in reload_because)
    if not changed and unit and unit.serves:
        if reload:
            yield StringCommand(f"systemctl reload {service.unit}")
        else:
            host.noop(f"{service.unit} serves")
        return
    changed = changed or reload
    starting = unit is not None and unit.active == "activating" and not unit.needs_reload
    verb = "start" if starting and not changed else "restart"
    yield StringCommand(
        f"systemctl daemon-reload && systemctl reset-failed {service.unit} 2>/dev/null; "
        f"systemctl --quiet enable {service.unit} && systemctl --no-block {verb} {service.unit}"
    )
    yield FunctionCommand(_join, (service, privileges()), {})


@operation()
def gone(unit: str, path: str, seen: Mapping[str, Unit]) -> Generator[str, None, None]:
    """Stops, disables and removes a unit that is there."""
    if unit not in seen:
        host.noop(f"{unit} is gone")
        return
    yield (
        f"systemctl --quiet disable --now {unit}; rm -f -- {path} && systemctl daemon-reload; "
        f"systemctl reset-failed {unit} 2>/dev/null; true"
    )


def _join(state: State, host: Host, service: Service, given: dict[str, Any]) -> bool:
    """Waits until the unit is active or cannot become it. False fails this host alone."""
    remote = Remote(host, given)

    def judge(text: str, waited: float) -> bool | None:
        active, restarts, job = text.split()
        if active == "active":
            say(remote, service.label, f"serves after {waited:.0f} s")
            return True
        # what a restart ends may pass through "failed" before it is started again: then a job is pending
        failed = active == "failed" and job == "none"
        if failed or int(restarts) >= 2 or waited > service.timeout_seconds:
            return _explain(remote, service, waited)
        return None

    show = f"systemctl show {service.unit} -P"
    look = f'job=$({show} Job); echo "$({show} ActiveState) $({show} NRestarts) ${{job:-none}}"'
    return wait(remote, service.label, look, judge)


# What the newest error in a journal means, and the setting to change.
EXPLANATIONS = (
    ("out of memory", "It ran out of memory: lower serve.*.max_model_len or gpu_memory_utilization."),
    ("No available memory for the cache blocks", "No memory is left for the KV cache: lower max_model_len."),
    ("address already in use", "Another program holds the port: set serve.*.port."),
    (
        "are not supported for now",
        "This vLLM does not know the model's architecture: set serve.*.vllm to a newer one.",
    ),
    (
        "driver version is insufficient",
        "The NVIDIA driver is older than torch's CUDA: see `python -m plan explain`.",
    ),
    ("answered with nothing", "The model may be damaged: remove its directory below /srv/models, run again."),
    ("does not answer a chat completion", "Memory may be short, or the model damaged: lower max_model_len."),
    ("libnuma.so.1", "libnuma1 is missing on the host."),
)


def _explain(remote: Remote, service: Service, waited: float) -> bool:
    """Logs the newest error of the unit's journal and what to do about it."""
    text = remote.run(journal(service.unit, 400)).text
    lines = text.splitlines()
    errors = [line for line in lines if "error" in line.lower()] or lines
    hints = [hint for sign, hint in EXPLANATIONS if sign.lower() in text.lower()]
    words = "\n".join(f"    {line}" for line in [*errors[-6:], f"More: journalctl -u {service.unit}"])
    say(
        remote,
        service.label,
        f"does not serve after {waited:.0f} s. {' '.join(hints[:1])}\n{words}",
        logger.error,
    )
    return False
