"""What the lab's hosts shall be. The lab wrote its addresses, key and pins down when it came up."""

import json as _json
import os as _os
from pathlib import Path as _Path

_state = _Path(_os.environ.get("BRINGUP_LAB_DIR", "/var/lib/bringup-lab"))
_offer_file = _state / "hubs" / "sources.json"

ssh_user = _os.environ.get("BRINGUP_LAB_USER", "root")
ssh_key = str(_state / "id_ed25519")
ssh_known_hosts_file = str(_state / "known_hosts")
ssh_strict_host_key_checking = "yes"
_sudo = ssh_user != "root"

# pyinfra reads every file of this folder, whichever inventory it was given
if _os.access(_offer_file, _os.R_OK):
    _offer = _json.loads(_offer_file.read_text())
    _ollama = _offer.get("ollama", {})
    sources = {
        "models": _offer["models"]["endpoint"],
        "conda_installer": _offer["conda"]["installer_url"],
        "conda_installer_sha256": _offer["conda"]["installer_sha256"],
        "wheels": _offer["wheels"]["index"],
        "wheels_extra": _offer["wheels"]["extra_indexes"],
        "wheels_links": _offer["wheels"]["find_links"],
        "ollama": _ollama.get("base"),
        "ollama_version": _ollama.get("version"),
        "ollama_sha256": _ollama.get("sha256"),
    }
    environment = {"python": _offer["conda"]["python"], "lock_file": _offer["conda"]["lock_file"]}
    serve = {
        "chat": {
            "model": _offer["model"],
            "max_model_len": 2048,
            # the lab's hosts share one small computer
            "flags": {"kv-cache-memory-bytes": 64 * 1024**2},
        }
    }
access = {
    "listen": f"{_os.environ.get('BRINGUP_LAB_NET', '10.44.0')}.0/24",
    "api_key_file": str(_state / "api-key"),
    # plain http, so that any client can be tried without trusting a certificate first
    "tls": _os.environ.get("BRINGUP_LAB_TLS", "off"),
}
