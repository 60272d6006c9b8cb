"""The command line: conda's words, options, output and exit statuses, as far as scripts use them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

from . import VERSION, environments
from .environments import ROOT
from .errors import CondaError, CondaValueError

CREATED = """#
# To activate this environment, use
#
#     $ conda activate {target}
#
# To deactivate an active environment, use
#
#     $ conda deactivate
"""


def main() -> int:
    arguments = parser().parse_args()
    try:
        arguments.run(arguments)
    except CondaError as error:
        print(f"\n{type(error).__name__}: {error}\n", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    conda = argparse.ArgumentParser(prog="conda", description="stand-in for conda, for tests only")
    conda.add_argument("-V", "--version", action="version", version=f"conda {VERSION} (lab stand-in)")
    words = conda.add_subparsers(metavar="COMMAND", required=True)
    add_create(words.add_parser("create", help="create an environment from an explicit file"))
    add_list(words.add_parser("list", help="list the packages of an environment"))
    add_remove(words.add_parser("remove", help="remove an environment"), needs_all=True)
    info = words.add_parser("info", help="what this installation is")
    info.add_argument("--json", action="store_true")
    info.add_argument("-e", "--envs", action="store_true")
    info.set_defaults(run=print_info)
    env = words.add_parser("env", help="manage environments").add_subparsers(metavar="command", required=True)
    env_list = env.add_parser("list", help="list the environments")
    env_list.add_argument("--json", action="store_true")
    env_list.set_defaults(run=print_environments)
    add_remove(env.add_parser("remove", help="remove an environment"), needs_all=False)
    return conda


def add_target(command: argparse.ArgumentParser, required: bool) -> None:
    target = command.add_mutually_exclusive_group(required=required)
    target.add_argument("-n", "--name")
    target.add_argument("-p", "--prefix")


def add_create(command: argparse.ArgumentParser) -> None:
    add_target(command, required=True)
    command.add_argument("--file", type=Path, required=True)
    command.add_argument("-y", "--yes", action="store_true")
    command.add_argument("-q", "--quiet", action="store_true")
    command.set_defaults(run=create)


def add_list(command: argparse.ArgumentParser) -> None:
    add_target(command, required=False)
    command.add_argument("--json", action="store_true")
    command.add_argument("--explicit", action="store_true")
    command.add_argument("--md5", action="store_true")
    command.add_argument("--sha256", action="store_true")
    command.set_defaults(run=print_packages)


def add_remove(command: argparse.ArgumentParser, needs_all: bool) -> None:
    add_target(command, required=True)
    command.add_argument("-y", "--yes", action="store_true")
    command.add_argument("-q", "--quiet", action="store_true")
    if needs_all:
        command.add_argument("--all", action="store_true", required=True)
    command.set_defaults(run=remove)


# -- the commands ---------------------------------------------------------------------------------------


def create(arguments: argparse.Namespace) -> None:
    confirm(arguments)
    prefix = Path(arguments.prefix).absolute() if arguments.prefix else named_prefix(arguments.name)
    environments.create(prefix, arguments.file)
    if not arguments.quiet:
        print("\nDownloading and Extracting Packages: ...working... done")
        for step in ("Preparing", "Verifying", "Executing"):
            print(f"{step} transaction: ...working... done")
        print(CREATED.format(target=arguments.name or prefix))


def remove(arguments: argparse.Namespace) -> None:
    confirm(arguments)
    prefix = environments.existing(arguments.name, arguments.prefix)
    environments.remove(prefix)
    if not arguments.quiet:
        print(f"\nRemove all packages in environment {prefix}:\n")


def confirm(arguments: argparse.Namespace) -> None:
    """The stand-in asks nothing: without --yes it does nothing."""
    if not arguments.yes:
        raise CondaValueError("this stand-in works without a terminal only: give --yes.")


def named_prefix(name: str) -> Path:
    if "/" in name or name in ("", ".", ".."):
        raise CondaValueError(f"Invalid environment name: {name!r}")
    return environments.prefix_of_name(name)


def print_environments(arguments: argparse.Namespace) -> None:
    prefixes = environments.all_prefixes()
    if arguments.json:
        print(json.dumps({"envs": [str(prefix) for prefix in prefixes]}, indent=2))
        return
    print("\n# conda environments:\n#")
    for prefix in prefixes:
        active = "*" if os.environ.get("CONDA_PREFIX") == str(prefix) else " "
        print(f"{name_of(prefix):<20}  {active}  {prefix}")
    print()


def name_of(prefix: Path) -> str:
    if prefix == ROOT:
        return "base"
    return prefix.name if prefix.parent == environments.ENVIRONMENTS else ""


def print_packages(arguments: argparse.Namespace) -> None:
    prefix = environments.existing(arguments.name, arguments.prefix)
    if arguments.explicit:
        print_explicit(prefix, "md5" if arguments.md5 else "sha256" if arguments.sha256 else None)
        return
    entries = environments.packages_in(prefix)
    if arguments.json:
        print(json.dumps(entries, indent=2))
        return
    print(f"# packages in environment at {prefix}:\n#")
    print(f"# {'Name':<23} {'Version':<15} {'Build':>15}  Channel")
    for entry in entries:
        print(f"{entry['name']:<25} {entry['version']:<15} {entry['build_string']:>15}  {entry['channel']}")


def print_explicit(prefix: Path, algorithm: str | None) -> None:
    print("# This file may be used to create an environment using:")
    print("# $ conda create --name <env> --file <this file>")
    print(f"# platform: linux-64\n# created-by: conda {VERSION}\n@EXPLICIT")
    for record in environments.records_in(prefix):
        prefixes = {None: "", "md5": "#", "sha256": "#sha256:"}
        print(record["url"] + prefixes[algorithm] + (record[algorithm] if algorithm else ""))


def print_info(arguments: argparse.Namespace) -> None:
    if arguments.envs and not arguments.json:
        print_environments(arguments)
        return
    active = os.environ.get("CONDA_PREFIX")
    info: dict[str, object] = {
        "active_prefix": active,
        "active_prefix_name": name_of(Path(active)) if active else None,
        "channels": [],
        "conda_location": str(Path(__file__).parent),
        "conda_prefix": str(ROOT),
        "conda_version": VERSION,
        "default_prefix": active or str(ROOT),
        "envs": [str(prefix) for prefix in environments.all_prefixes()],
        "envs_dirs": [str(environments.ENVIRONMENTS)],
        "offline": False,
        "pkgs_dirs": [str(environments.PACKAGE_CACHE)],
        "platform": "linux-64",
        "python_version": platform.python_version() + ".final.0",
        "root_prefix": str(ROOT),
        "root_writable": os.access(ROOT, os.W_OK),
        "sys.executable": sys.executable,
    }
    if arguments.json:
        print(json.dumps(info, indent=2))
        return
    for key, value in info.items():
        print(f"{key.replace('_', ' '):>22} : {value}")
