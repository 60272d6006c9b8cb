"""Writes the stamp: what this deploy made of the host, when all of it has succeeded."""

import hashlib
import json
import shlex
from collections.abc import Generator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation
from pyinfra.context import host

from ops import files, locks
from ops.planning import layers
from ops.version import version
from plan import settings, stamp
from plan.host import HostPlan
from plan.probe import Probe

# As `plan.stamp.state` has it, from what is on the host now.
STATE_SCRIPT = """{{ echo "kernel $(uname -r)"
  version=$(cat /sys/module/nvidia/version 2>/dev/null ||
    sed -nE '{module}' /proc/driver/nvidia/version 2>/dev/null)
  echo "driver ${{version:--}}"
  if command -v dpkg-query >/dev/null; then
    dpkg-query -W -f '${{db:Status-Abbrev}} package ${{Package}} ${{Version}}\\n' {packages} 2>/dev/null |
      sed -n 's/^.i *//p'
  else rpm -q --qf 'package %{{NAME}} %{{VERSION}}-%{{RELEASE}}\\n' {packages} | grep '^package .* .*-'; fi
  sha256sum /etc/bringup/environments/*/requirements-*.txt 2>/dev/null |
    while read -r sum path; do echo "lock $path $sum"; done
}} | LC_ALL=C sort -u >{file}.new && chmod 600 {file}.new && mv -f {file}.new {file}"""


_MODULE = r"s/.*Kernel Module( for [^ ]+)? +([0-9.]+).*/\2/p"


@operation()
def write(plan: HostPlan, probe: Probe) -> Generator[StringCommand, None, None]:
    """Writes down what this host now is. Comes last: who reads a stamp may rely on all that it says."""
    time = probe.stamp_time or datetime.now(UTC).isoformat(timespec="seconds")
    kept = _file(_stamp(plan, time))
    if not kept.differs(probe.paths.get(stamp.FILE)) and probe.state == stamp.state(
        probe, plan.base_packages
    ):
        host.noop("the stamp is as the host is")
        return
    now = _file(_stamp(plan, datetime.now(UTC).isoformat(timespec="seconds")))
    packages = shlex.join(plan.base_packages)
    yield StringCommand(STATE_SCRIPT.format(packages=packages, file=stamp.STATE_FILE, module=_MODULE))
    yield from files.write._inner(files=[now], seen={})


def _file(content: stamp.Stamp) -> files.File:
    return files.File(stamp.FILE, content.text(), mode="600")


def _stamp(plan: HostPlan, time: str) -> stamp.Stamp:
    return stamp.Stamp(
        version=version(),
        time=time,
        settings=settings_digest(settings.read(layers(host))),
        plan=stamp.lasting(plan),
        files=_files(files.meant(host.name)),
        lock=locks.digest(host.name),
    )


def _files(meant: Mapping[str, files.File]) -> dict[str, stamp.StampedFile]:
    found = {}
    for path, file in meant.items():
        if path == stamp.FILE:
            continue
        public = int(file.mode, 8) & 0o044 == 0o044
        sha256 = hashlib.sha256(file.text.encode()).hexdigest()
        found[path] = stamp.StampedFile(
            file.mode, file.owner, sha256 if public else None, file.text if public else None
        )
    return found


def settings_digest(wanted: settings.Settings) -> str:
    """Twelve hex digits that change whenever a setting does, or what stands in a file that one names."""
    given = wanted.model_dump(mode="json")
    # entries under model ids are settings of their own
    entries = {name: entry.model_dump(mode="json") for name, entry in wanted.models.downloads.items()}
    text = json.dumps([given, entries, dict(_named_files(wanted))], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _named_files(wanted: settings.Settings) -> Iterator[tuple[str, str]]:
    """Path and sha256 of the files on this machine whose content a plan takes."""
    services = wanted.serve.values()
    named = [wanted.environment.lock_file, *(service.chat_template for service in services)]
    named += [service.ollama.modelfile for service in services]
    for name in filter(None, named):
        path = Path(name).expanduser()
        if path.is_file():
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()
