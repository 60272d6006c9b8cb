"""`python -m tests.lab.hubs build ROOT BASE_IMAGE` and `python -m tests.lab.hubs serve ROOT ADDRESS`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.lab.hubs import BuildError, build
from tests.lab.hubs.serve import FILES_PORT, MODELSCOPE_PORT, serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.hubs", description="the lab's stand-ins")
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build", help="make models, wheels, conda channel and installer")
    builder.add_argument("root", type=Path)
    builder.add_argument("base_image", type=Path, help="root folder of the hosts' base image")
    server = commands.add_parser("serve", help=f"ports {MODELSCOPE_PORT} (ModelScope), {FILES_PORT} (files)")
    server.add_argument("root", type=Path)
    server.add_argument("address")
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            build(arguments.root, arguments.base_image)
        else:
            serve(arguments.root, arguments.address)
    except BuildError as error:
        print(f"cannot build {arguments.root}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"cannot {arguments.command} {arguments.root}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
