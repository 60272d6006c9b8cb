"""What all hosts of inventories/prod.py share."""

# How to log in: a user who may `sudo` without a password, or root (then without `_sudo`).
ssh_user = "ops"
_sudo = True

# Where hosts fetch from: "default", or "china" for mirrors there. Single addresses can be given too:
# sources = {"preset": "china", "models": "http://hub.intranet:9100"}
sources = "default"

# Services listen on loopback unless you name an address or a network. Then a front asks for a key, over
# https: one line in a file on this machine, for example from `openssl rand -hex 24`.
# access = {"listen": "10.1.0.0/16", "api_key_file": "~/.config/bringup/api-key"}
