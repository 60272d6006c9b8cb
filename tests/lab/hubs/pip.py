"""This machine's own pip: downloads by its configuration, and what of that configuration hosts can use."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.lab.hubs.recipe import BuildError

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


class DownloadError(BuildError):
    """pip found no such wheel."""


def download(requirement: str, folder: Path, python: str, *options: str) -> Path:
    """One wheel without its dependencies, for CPython `python` ("3.11"), x86_64, glibc 2.28 or newer."""
    target = ["--python-version", python, "--implementation", "cp"]
    for abi in ("cp" + python.replace(".", ""), "abi3", "none"):
        target += ["--abi", abi]
    for platform in PLATFORMS:
        target += ["--platform", platform]
    command = [*PIP, "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    before = set(folder.iterdir())
    done = subprocess.run([*command, *target, *options, requirement], capture_output=True, text=True)
    if done.returncode != 0:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), done.stderr)
        raise DownloadError(f"pip cannot download {requirement} for Python {python}: {reason.strip()}")
    (wheel,) = set(folder.iterdir()) - before
    return wheel


def configured_urls(option: str, listing: str | None = None) -> list[str]:
    """The http(s) addresses that pip is configured with for `index-url`, `extra-index-url` or `find-links`.

    `listing` is the output of `pip config list`. As in pip, the environment goes before files. Addresses of
    this machine's own disk mean nothing to a host and are left out.
    """
    if listing is None:
        listing = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        scope, _, name = key.rpartition(".")
        if name == option and scope in (":env:", "download", "global"):
            found[scope] = str(ast.literal_eval(value)).split()
    urls = next((found[scope] for scope in (":env:", "download", "global") if scope in found), [])
    return [url for url in urls if url.startswith(("http://", "https://"))]
