"""The real `modelscope` client, as a host gets it, in an environment of its own on this computer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from plan import packages
from tests.lab.hubs import pip


def install_client(environment: Path) -> Path:
    """Makes the environment, and returns the path of its `modelscope`."""
    uv, python = str(Path(sys.executable).with_name("uv")), str(environment / "bin" / "python")
    variables = os.environ | {"UV_SYSTEM_CERTS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    index = [f"--default-index={url}" for url in pip.configured_urls("index-url")]
    wanted = f"modelscope=={packages.modelscope()}"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, environment], env=variables, check=True)
    subprocess.run(
        [uv, "pip", "install", "-q", "--python", python, *index, wanted], env=variables, check=True
    )
    return environment / "bin" / "modelscope"
