"""The front: nginx of the distribution, in a unit and with a configuration of its own."""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Generator
from typing import Any

from pyinfra.api.command import FunctionCommand, PyinfraCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta, operation
from pyinfra.api.state import State
from pyinfra.context import host

from ops import files, packages, task, units
from ops.remote import Remote, privileges
from ops.render import render
from ops.waiting import say
from plan import probe_gateway
from plan import secrets as secret
from plan.gateway import CACHE, DIRECTORY, SWITCHES, UNIT, UNIT_FILE, UNLOADED, USER, GatewayPlan
from plan.host import HostPlan
from plan.probe import Probe
from plan.secrets import Secrets

CONFIGURATION = f"{DIRECTORY}/nginx.conf"
OWN_CERTIFICATE, OWN_KEY, OWN_NAMES = (
    f"{DIRECTORY}/{name}" for name in ("own-certificate.pem", "own-key.pem", "own-names")
)
GIVEN_CERTIFICATE, GIVEN_KEY = (f"{DIRECTORY}/{name}" for name in ("given-certificate.pem", "given-key.pem"))
# Root writes it, the front reads it, nobody else does.
SECRET = {"mode": "640", "owner": f"root:{USER}"}
START_SECONDS = 60
# the front reads what lies beside it
MARK = f"mkdir -p -m 755 {UNLOADED.rpartition('/')[0]} && touch {UNLOADED}"
TEST = "/usr/sbin/nginx -t -q -c"


def clear(plan: HostPlan, probe: Probe) -> None:
    """Takes the front away from a host that has nothing to guard any more; the package stays."""
    units.gone(unit=UNIT, paths=[UNIT_FILE, UNLOADED], seen=_unwanted(plan, probe), name="Remove the front")
    files.absent(paths=plan.removed_gateway, seen=plan.removed_gateway, name="Remove the front's files")
    remove_user(exists=bool(plan.removed_gateway) and probe.gateway.user, name="Remove the front's user")


def _unwanted(plan: HostPlan, probe: Probe) -> dict[str, Any]:
    return {UNIT: probe.units.get(UNIT)} if UNIT_FILE in plan.removed_gateway else {}


def serve(plan: HostPlan, probe: Probe, secrets: Secrets) -> None:
    """Installs the front, writes what it lets through, checks that, and only then puts it to work."""
    gateway = plan.gateway
    if gateway is None or secrets.api_key is None:
        return
    task.run(
        task=_package(plan, gateway),
        needed=not probe.gateway.secure_link or "openssl" not in probe.packages,
        name="Install nginx for the front",
    )
    make_user(exists=probe.gateway.user, name="Create the front's user")
    files.directories(
        wanted=[
            files.Directory(DIRECTORY, mode="750", owner=f"root:{USER}"),
            files.Directory(CACHE, mode="700", owner=f"{USER}:{USER}"),
        ],
        seen=probe.paths,
        name="Make the front's directories",
    )
    certificate = _certificate(gateway, probe, secrets)
    configuration = files.write(
        files=[files.File(CONFIGURATION, configuration_text(gateway, secrets.api_key), **SECRET)],
        seen=probe.paths,
        check=f"setpriv --reuid {USER} --regid {USER} --init-groups {TEST} {CONFIGURATION}.new",
        mark=MARK,
        name="Write what the front lets through",
    )
    unit = files.write(
        files=[files.File(UNIT_FILE, unit_text(gateway))], seen=probe.paths, name="Write the front's unit"
    )
    units.serving(
        service=units.Service(UNIT, "front", START_SECONDS, mark=UNLOADED),
        seen=probe.units,
        because=[unit],
        reload_because=[configuration, certificate],
        reload=probe.gateway.unloaded,
        name="Serve the front",
    )
    # the operator's own, key and all; not before nginx does without it
    files.absent(
        paths=[] if gateway.certificate == "given" else [GIVEN_CERTIFICATE, GIVEN_KEY],
        seen=probe.paths,
        name="Remove the certificate that is given no more",
    )


def _package(plan: HostPlan, gateway: GatewayPlan) -> task.Task:
    """nginx without its own service, which would listen on port 80 of all addresses.

    A host that has nginx already keeps it as it is.
    """
    options = packages.options(plan)
    install = packages.install_task("gateway-packages", gateway.packages, plan.package_manager, options)
    script = f"""there=no
if [ -x /usr/sbin/nginx ]; then there=yes; else systemctl --quiet mask --runtime nginx.service; fi
{install.script}
if [ $there = no ]; then
    systemctl --quiet disable nginx.service 2>/dev/null || true
    systemctl --quiet unmask --runtime nginx.service
fi"""
    return dataclasses.replace(install, script=script)


def _certificate(gateway: GatewayPlan, probe: Probe, secrets: Secrets) -> OperationMeta:
    if gateway.certificate == "own":
        return own_certificate(gateway=gateway, name="Make the front's certificate")
    given: list[files.File] = []
    if secrets.certificate and secrets.certificate_key:
        given = [
            files.File(GIVEN_CERTIFICATE, secrets.certificate, **SECRET),
            files.File(GIVEN_KEY, secrets.certificate_key, **SECRET),
        ]
    return files.write(files=given, seen=probe.paths, mark=MARK, name="Write the front's certificate")


@operation()
def own_certificate(gateway: GatewayPlan) -> Generator[PyinfraCommand, None, None]:
    """A key that never leaves the host, and a certificate by itself; shows the fingerprint."""
    if not gateway.renew:
        host.noop("the certificate is as planned")
        return
    subject = gateway.names[0].partition(":")[2]
    yield StringCommand(
        "umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 "
        f"-days 825 -subj /CN={subject} -addext subjectAltName={','.join(gateway.names)} "
        f"-keyout {OWN_KEY}.new -out {OWN_CERTIFICATE}.new 2>&1 && "
        f"chown root:{USER} {OWN_KEY}.new {OWN_CERTIFICATE}.new && "
        f"chmod 640 {OWN_KEY}.new {OWN_CERTIFICATE}.new && "
        f"{MARK} && mv -f {OWN_KEY}.new {OWN_KEY} && mv -f {OWN_CERTIFICATE}.new {OWN_CERTIFICATE} && "
        # last: while they are those of before, it is made again
        f"printf '%s\\n' {' '.join(gateway.names)} >{OWN_NAMES}"
    )
    yield FunctionCommand(_show_fingerprint, (privileges(),), {})


def _show_fingerprint(state: State, host: Host, given: dict[str, Any]) -> bool:
    remote = Remote(host, given)
    pem = remote.run(f"cat {OWN_CERTIFICATE}").text
    if "BEGIN CERTIFICATE" in pem:
        say(remote, "front", f"its certificate has the sha256 fingerprint {probe_gateway.fingerprint(pem)}")
    return True


@operation()
def make_user(exists: bool) -> Generator[str, None, None]:
    """The front's own user: what serves models cannot read its key and certificate."""
    if exists:
        host.noop(f"{USER} exists")
        return
    home = f"--no-create-home --home-dir {CACHE}"
    yield f"useradd --system --user-group {home} --shell /usr/sbin/nologin {USER}"


@operation()
def remove_user(exists: bool) -> Generator[str, None, None]:
    """Takes the front's user away."""
    if not exists:
        host.noop(f"{USER} is gone")
        return
    yield f"userdel {USER}"


def configuration_text(gateway: GatewayPlan, api_key: str) -> str:
    """nginx's configuration; it holds a digest of the key, and the key nowhere."""
    salt = secret.salt(api_key)
    digest = hashlib.md5(f"{salt}{api_key}".encode(), usedforsecurity=False).digest()
    return render(
        "gateway/nginx.conf.j2",
        gateway=gateway,
        directory=DIRECTORY,
        cache=CACHE,
        switches=SWITCHES,
        salt=salt,
        digest=base64.urlsafe_b64encode(digest).decode().rstrip("="),
        problem=_problem,
    )


def _problem(message: str, code: str) -> str:
    """An error as OpenAI's clients read it, inside nginx's single quotes."""
    return json.dumps({"error": {"message": message, "type": "front_error", "code": code}})


def unit_text(gateway: GatewayPlan) -> str:
    """The front's unit file."""
    return render(
        "gateway/bringup-gateway.service.j2",
        user=USER,
        directory=DIRECTORY,
        cache=CACHE,
        # the front itself tells which of them may ask for what
        peers=tuple(dict.fromkeys((*gateway.clients, *gateway.monitoring))) if gateway.clients else (),
    )
