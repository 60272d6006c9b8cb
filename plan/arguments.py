"""Command-line arguments of `python -m plan`, each refused in one sentence when it is wrong."""

import argparse
import re
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, NoReturn

from plan import bundle, compat, gpus, hub, ollama_settings
from plan.gpus import Gpu

MOST_GPUS = 64
MOST_CONTEXT = 10_000_000
BAD_INPUT = 2


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage text before it."""

    def error(self, message: str) -> NoReturn:
        """Prints the sentence and ends with exit code 2."""
        text = message.replace("argument ", "", 1)
        sys.stderr.write(f"{self.prog}: {text}{'' if text.endswith(('.', '?')) else '.'}\n")
        raise SystemExit(BAD_INPUT)


def _refuse(sentence: str) -> NoReturn:
    raise argparse.ArgumentTypeError(sentence)


def gpu(text: str) -> Gpu:
    """A GPU by the name people use, or by its PCI id."""
    try:
        return gpus.lookup(text)
    except gpus.UnknownGpuError as error:
        _refuse(str(error))


def driver(text: str) -> str:
    """A driver version, "535.104.05"; of a bare branch, "535", its first release."""
    if not re.fullmatch(r"\d{3}(\.\d{1,3}){0,2}", text):
        _refuse(f"{text!r} is no driver version. Write it as in 535.104.05.")
    if "." in text:
        return text
    rows = [row for row in compat.branches() if row.branch == int(text)]
    if not rows:
        known = ", ".join(str(row.branch) for row in compat.branches())
        _refuse(f"{text} is no driver branch of the tables ({known}). Write the whole version.")
    return compat.cuda(rows[0].cuda).native_driver


def system(text: str) -> str:
    """An operating system of the tables."""
    if compat.system(text) is None:
        known = ", ".join(sorted(compat.systems()))
        _refuse(f"{text!r} is not in the tables. Write one of {known}, or give --glibc.")
    return text


def glibc(text: str) -> str:
    """A version of the C library, "2.35"."""
    if not re.fullmatch(r"2\.\d{1,2}", text):
        _refuse(f"{text!r} is no glibc version. Write it as in 2.35.")
    return text


def python(text: str) -> str:
    """A Python version, "3.12"."""
    if not re.fullmatch(r"3\.\d{1,2}", text):
        _refuse(f"{text!r} is no Python version. Write it as in 3.12.")
    return text


def release(text: str) -> str:
    """A version of a package, "0.8.5" or "2.5.1+cu121"."""
    if not re.fullmatch(r"\d{1,3}(\.\d{1,4}){1,3}(\.?(post|rc|dev)\d{1,3})?(\+[a-z0-9]{2,12})?", text):
        _refuse(f"{text!r} is no version. Write it as in 0.8.5 or 2.5.1+cu121.")
    return text


def upgrade(text: str) -> str:
    """A package, with or without a version, or a model's id."""
    package = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]{0,100})(==[0-9][A-Za-z0-9.+!]{0,60})?", text)
    if package:
        return re.sub(r"[-_.]+", "-", package[1]).lower() + (package[2] or "")
    if hub.is_model_id(text) or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,160}:[A-Za-z0-9._-]{1,64}", text):
        return text
    _refuse(f"{text!r} is no package. Write its name, or as in numpy==2.2.6.")


def day(text: str) -> str:
    """A day that was, "2026-05-01"."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        _refuse(f"{text!r} is no day. Write it as in 2026-05-01.")
    if found > datetime.now(UTC).date():
        _refuse(f"{text} is still to come. Name a day that was.")
    return found.isoformat()


def model(text: str) -> str:
    """A hub id, an Ollama tag, or a directory."""
    if hub.is_model_id(text) or (ollama_settings.TAG.fullmatch(text) and text[0].isalnum()):
        return text
    if text.startswith(("/", "./", "../", "~")) and text.isprintable():
        return text
    _refuse(f"{text!r} is no model. Write a hub id such as Qwen/Qwen2.5-7B-Instruct, or a directory.")


def url(text: str) -> str:
    """An http or https address."""
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?(/[A-Za-z0-9._~%+,=@/-]*)?", text):
        _refuse(f"{text!r} is no address. Write it as in {hub.DEFAULT_ENDPOINT}.")
    return text


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number within bounds."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?\d{1,12}", text) or not least <= int(text) <= most:
            _refuse(f"{text!r} is no whole number from {least} to {most}.")
        return int(text)

    return parse


def share(text: str) -> float:
    """A share of the GPU's memory."""
    if not re.fullmatch(r"0?\.\d{1,4}|1(\.0+)?|0", text) or not 0 < float(text) <= 1:
        _refuse(f"{text!r} is no share of the memory. Write it as in 0.9.")
    return float(text)


def gibibytes(text: str) -> float:
    """A size in GiB."""
    if not re.fullmatch(r"\d{1,7}(\.\d{1,3})?", text) or float(text) == 0:
        _refuse(f"{text!r} is no size in GiB. Write it as in 64.")
    return float(text)


def parser() -> Parser:
    """The whole command line."""
    top = Parser(prog="python -m plan", description="Decide a stack for a GPU host, and say why.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _explain(commands.add_parser("explain", help="the stack for a host, pin by pin"))
    _fit(commands.add_parser("fit", help="whether a model fits on GPUs, and with which context"))
    _lock(commands.add_parser("lock", help="write what an inventory's hosts get, with every hash, beside it"))
    diff = commands.add_parser("diff", help="what changed between two locks")
    diff.add_argument("old", metavar="OLD.lock")
    diff.add_argument("new", metavar="NEW.lock")
    _bundle(commands.add_parser("bundle", help="collect what a lock names, for hosts without a way out"))
    smi = commands.add_parser("parse-smi", help="what the probe makes of a saved `nvidia-smi -q -x`")
    smi.add_argument("file", metavar="FILE", help="the saved output; - reads standard input")
    _json(smi)
    return top


def _lock(command: argparse.ArgumentParser) -> None:
    add: Any = command.add_argument
    add("inventory", metavar="INVENTORY", help="as one gives it to pyinfra: inventories/prod.py")
    add("--probes", metavar="FOLDER", help="saved looks at the hosts, instead of the hosts")
    add(
        "--upgrade",
        type=upgrade,
        action="append",
        default=[],
        metavar="PACKAGE",
        help="move this to its newest, or NAME==VERSION; a model's id or tag; vllm, torch, python, ollama, "
        "packages, driver",
    )
    add(
        "--as-of",
        type=day,
        metavar="DATE",
        help="resolve every stack anew as its packages were on that day, such as 2026-05-01",
    )


def _bundle(command: argparse.ArgumentParser) -> None:
    add: Any = command.add_argument
    add("lock", metavar="LOCK", help="as `python -m plan lock` wrote it: inventories/prod.lock")
    add("folder", metavar="OUT", help="the directory to collect it in; a later run goes on there")
    kinds = ", ".join(bundle.KINDS)
    add("--only", action="append", choices=bundle.KINDS, metavar="KIND", help=f"repeatable; {kinds}")
    add("--sizes", action="store_true", help="say how large it will be, and fetch nothing")


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON; docs/decisions.md has its shape")


def _gpus(command: argparse.ArgumentParser) -> None:
    add: Any = command.add_argument
    add("--gpu", type=gpu, action="append", default=[], metavar="GPU", help="name or PCI id; repeatable")
    counts = whole(1, MOST_GPUS)
    add("--gpu-count", type=counts, metavar="N", help="how many of the one kind (default 1)")
    add("--tensor-parallel", type=counts, metavar="N", help="GPUs that share each layer")
    add("--max-model-len", type=whole(16, MOST_CONTEXT), metavar="N", help="context in tokens")
    add("--gpu-memory-utilization", type=share, metavar="SHARE", help="share of the memory for vLLM")
    add("--kv-cache-dtype", choices=("auto", "fp8", "fp8_e4m3", "fp8_e5m2"), help="type of the KV cache")
    add("--vllm", type=release, metavar="VERSION", help="vLLM to hold to")
    add(
        "--hub", type=url, default=hub.DEFAULT_ENDPOINT, metavar="URL", help="hub of models not in the tables"
    )


def _explain(command: argparse.ArgumentParser) -> None:
    add: Any = command.add_argument
    _gpus(command)
    add("--driver", type=driver, metavar="VERSION", help="the NVIDIA driver that is there; kept")
    add("--manage-driver", action="store_true", help="the given driver may be replaced")
    add("--os", type=system, metavar="NAME", help="operating system, such as ubuntu22.04 or rhel9")
    add("--glibc", type=glibc, metavar="VERSION", help="C library, instead of --os")
    add("--architecture", choices=("x86_64", "aarch64"), help="of the host's processor")
    add("--memory", type=gibibytes, metavar="GIB", help="the host's memory")
    add("--python", type=python, metavar="VERSION", help="Python to hold to")
    add("--torch", type=release, metavar="VERSION", help="torch to hold to")
    add("--engine", choices=("vllm", "ollama"), default="vllm", help="what serves the model")
    add("--model", type=model, metavar="MODEL", help="hub id, directory, or Ollama tag")
    add("--policy", choices=("native", "compatible"), default="compatible", help="how new CUDA may be")
    add(
        "--prefer",
        choices=("safe", "newest"),
        default="safe",
        help="newest vLLM without a known risk, or with",
    )
    _json(command)


def _fit(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=model, metavar="MODEL", help="hub id or directory")
    _gpus(command)
    _json(command)
