"""The lab's network: a bridge with its gateway, and a way out for the package registries."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
from pathlib import Path

from tests.lab.layout import Lab, LabError
from tests.lab.shell import call, locked, tell

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_SHARED = Path("/run/bringup-lab")
"""What all labs of this computer have in common: the forwarding switch as it was before the first of them."""


def check(lab: Lab) -> None:
    """Raise LabError where the lab's addresses are in use by something else."""
    if owner(lab) not in ("", str(lab.directory)):
        raise LabError(
            f"{lab.network} belongs to the lab in {owner(lab)}: "
            "set BRINGUP_LAB_NET to another prefix, such as 10.45.0."
        )
    for route in json.loads(call("ip", "-json", "-4", "route", "show")):
        if route["dst"] == "default" or route.get("dev") == lab.bridge:
            continue
        if ipaddress.ip_network(route["dst"], strict=False).overlaps(ipaddress.ip_network(lab.network)):
            raise LabError(
                f"{lab.network} is already routed by {route.get('dev', 'another interface')} "
                f"({route['dst']}): set BRINGUP_LAB_NET to a free prefix, such as 10.45.0."
            )


def bring_up(lab: Lab) -> None:
    """Make what is missing of bridge, address translation and forwarding; leave alone what is there."""
    with locked(Path("/run")):
        if lab.bridge not in links():
            call("ip", "link", "add", "name", lab.bridge, "type", "bridge")
        call("ip", "link", "set", "dev", lab.bridge, "alias", str(lab.directory))
        call("ip", "link", "set", "dev", lab.bridge, "mtu", str(way_out_mtu()))
        call("ip", "address", "replace", f"{lab.gateway}/24", "dev", lab.bridge)
        call("ip", "link", "set", "dev", lab.bridge, "up")
        call("nft", "-f", "-", input=_packet_rules(lab))
        _switch_forwarding_on()
    _warn_of_firewall(lab)


def take_down(lab: Lab) -> None:
    """Remove bridge and rules, and restore forwarding when no other lab needs it."""
    with locked(Path("/run")):
        if owner(lab) in ("", str(lab.directory)):
            for link in [link for link in links() if link.startswith(f"vb-{lab.tag}-")] + [lab.bridge]:
                remove_link(link)
            if lab.packet_table in call("nft", "list", "tables"):
                call("nft", "delete", "table", "ip", lab.packet_table)
        _restore_forwarding()


def links() -> list[str]:
    return sorted(path.name for path in Path("/sys/class/net").iterdir())


def remove_link(link: str) -> None:
    if link in links():
        with contextlib.suppress(LabError):  # a dying machine takes its link along
            call("ip", "link", "delete", "dev", link)


def owner(lab: Lab) -> str:
    """The state directory of the lab that has this address prefix; "" when none has."""
    alias = Path("/sys/class/net", lab.bridge, "ifalias")
    return alias.read_text().strip() if alias.exists() else ""


def way_out_mtu() -> int:
    """The bridge must not be wider than the way out, or large packets are lost there."""
    routes = json.loads(call("ip", "-json", "-4", "route", "show", "default"))
    if not routes:
        return 1500
    return int(Path("/sys/class/net", routes[0]["dev"], "mtu").read_text())


def _packet_rules(lab: Lab) -> str:
    """Declared and deleted first, so that the same text serves a first run and a repair."""
    return f"""
table ip {lab.packet_table}
delete table ip {lab.packet_table}
table ip {lab.packet_table} {{
  chain way_out {{
    type nat hook postrouting priority srcnat;
    ip saddr {lab.network} oifname != "{lab.bridge}" masquerade
  }}
}}
"""


def _warn_of_firewall(lab: Lab) -> None:
    """No rule of ours can undo another table's verdict: Docker, for one, drops what it does not forward."""
    for entry in json.loads(call("nft", "--json", "list", "chains"))["nftables"]:
        chain = entry.get("chain", {})
        if chain.get("hook") == "forward" and chain.get("policy") == "drop":
            place = f"{chain['family']} {chain['table']} {chain['name']}"
            tell(
                f"warning: the firewall of this computer ({place}) may drop what the hosts send to "
                f"the package registries; if so: `nft insert rule {place} iifname {lab.bridge} accept; "
                f"nft insert rule {place} oifname {lab.bridge} accept`"
            )


def _switch_forwarding_on() -> None:
    _SHARED.mkdir(exist_ok=True)
    before = _SHARED / "ip_forward"
    if not before.exists() or before.read_text().split()[:1] != [_boot_id()]:
        before.write_text(f"{_boot_id()} {_FORWARDING.read_text().strip()}\n")
    _FORWARDING.write_text("1")


def _restore_forwarding() -> None:
    if any(re.fullmatch(r"lab[0-9a-f]{6}", link) for link in links()):
        return
    before = _SHARED / "ip_forward"
    if before.exists():
        boot, value = before.read_text().split()
        if boot == _boot_id():
            _FORWARDING.write_text(value)
        before.unlink()
    if _SHARED.exists():
        _SHARED.rmdir()


def _boot_id() -> str:
    """After a reboot of the computer the switch is as the computer sets it, and the note is void."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
