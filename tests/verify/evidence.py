"""What is gathered on a host for the checks: one script, one round trip, many assertions."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plan import stamp
from plan.gateway import UNIT
from plan.host import BYTECODE, CONDA_PREFIX, HostPlan
from plan.probe_models import MANIFEST
from roles.gateway.deploy import CONFIGURATION
from roles.models.deploy import TOKENS
from roles.torch.deploy import CHECK, arguments

SCRIPT = Path(__file__).with_name("evidence.sh")
GENERATOR = Path(__file__).with_name("generate.py")
# The engines that generate with a model without a server, by the distribution that each of them is.
GENERATORS = ("vllm", "transformers")
# Flags of a server without which its model would not load, or as another one.
LOADING = (
    *("dtype", "quantization", "trust-remote-code", "tokenizer-mode", "load-format", "hf-overrides"),
    *("max-model-len", "tensor-parallel-size", "pipeline-parallel-size", "kv-cache-memory-bytes"),
)
# The packages whose import is tried, by distribution; others are known by their records alone.
MODULES = {
    "torch": "torch",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "modelscope": "modelscope",
}
PROPERTIES = (
    *("ActiveState", "SubState", "UnitFileState", "Result", "NRestarts", "MainPID", "NeedDaemonReload"),
    *("ActiveEnterTimestamp", "FragmentPath", "DropInPaths"),
)


@dataclass(frozen=True)
class Entry:
    """A path below a model's directory: find's type letter, octal mode, owner's id, bytes."""

    kind: str
    mode: str
    owner: int
    size: int


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket and the processes that hold it."""

    address: str
    port: int
    pids: frozenset[int]


@dataclass(frozen=True)
class Process:
    """A process: its id, its user's id, its name (empty where it was not asked for)."""

    pid: int
    user_id: int
    name: str = ""


@dataclass(frozen=True)
class Evidence:
    """The gathered text, in blocks: `kind` or `kind subject` -> lines."""

    blocks: Mapping[str, list[str]]

    def lines(self, kind: str, subject: str = "") -> list[str]:
        """The lines of a block that are not empty; none when the script had no reason to write it."""
        return [line for line in self.blocks.get(f"{kind} {subject}".strip(), []) if line.strip()]

    @property
    def user(self) -> list[str]:
        """The service user's fields of passwd(5); empty when there is no such user."""
        return "".join(self.lines("user")).split(":") if self.lines("user") else []

    @property
    def user_id(self) -> int | None:
        """The service user's id."""
        return int(self.user[2]) if self.user else None

    @property
    def conda_environments(self) -> list[str]:
        """The prefixes that `conda env list` names; empty when conda does not run."""
        try:
            return list(json.loads("\n".join(self.lines("conda_environments")))["envs"])
        except (ValueError, KeyError, TypeError):
            return []

    @property
    def imports(self) -> dict[str, str]:
        """Module -> its `__version__`, or why it does not import; "python" -> the interpreter's version."""
        return dict(json.loads(line) for line in self.lines("imports"))

    @property
    def lock(self) -> list[str]:
        """The requirements of the environment's lock, without their hashes."""
        return [line.split("\\")[0].strip() for line in self.lines("lock")]

    @property
    def torch(self) -> tuple[int, str]:
        """The torch check's exit status and what it said."""
        if "torch" not in self.blocks:
            return 127, "not run: the environment's Python ended before it"
        return int("".join(self.lines("python")) or 127), "\n".join(self.lines("torch"))

    @property
    def stamp(self) -> str | None:
        """The text of the stamp; None when there is none."""
        return self._text("stamp")

    @property
    def texts(self) -> dict[str, str]:
        """Path -> content of our files that everybody may read."""
        names = [name.removeprefix("text ") for name in self.blocks if name.startswith("text ")]
        return {name: self._text(f"text {name}") or "" for name in names}

    def _text(self, block: str) -> str | None:
        if block not in self.blocks:
            return None
        return "".join(f"{line[1:]}\n" for line in self.blocks[block] if line.startswith("|"))

    @property
    def clock(self) -> int | None:
        """The host's time, in seconds since 1970."""
        return int("".join(self.lines("clock"))) if self.lines("clock") else None

    @property
    def ours(self) -> dict[int, tuple[str, str]]:
        """Processes of our user or our programs: id -> name and unit."""
        fields = (line.split(None, 2) for line in self.lines("ours"))
        return {int(pid): (rest[0], rest[1].rpartition("/")[2]) for pid, *rest in fields if len(rest) == 2}

    @property
    def certificates(self) -> list[tuple[bool, str, str]]:
        """Whether it is valid now, its file, when it ends; of every certificate of the front."""
        fields = (line.split(None, 2) for line in self.lines("certificates"))
        return [(valid == "yes", path, ends) for valid, path, ends in fields]

    def exposure(self, unit: str) -> float | None:
        """What `systemd-analyze security` gives a unit, from 0 (closed) to 10; None where it says nothing."""
        found = re.search(r"exposure level for \S+ (\d+\.\d)", "".join(self.lines("security", unit)))
        return float(found[1]) if found else None

    def generated(self, engine: str, directory: str) -> dict[str, Any]:
        """What `generate.py` told of an engine and a model; where it ended without a word, its last words."""
        *words, told = self.lines("generated", f"{engine} {directory}") or ["it was not run"]
        try:
            return dict(json.loads(told))
        except (ValueError, TypeError):
            return {"outcome": "failed", "cause": f"it ended: {' '.join([*words, told])[-600:]}"}

    def model(self, directory: str) -> dict[str, Entry]:
        """What lies in a model's directory, by path below it; the directory itself is ``""``."""
        found = (line.split(" ", 4) for line in self.lines("model", directory))
        return {path: Entry(kind, mode, int(owner), int(size)) for kind, mode, owner, size, path in found}

    def hashes(self, directory: str) -> dict[str, str]:
        """sha256 of every file below a model's directory but the manifest."""
        found = (line.split(None, 1) for line in self.lines("hashes", directory))
        return {path.strip().removeprefix("./"): sha256 for sha256, path in found}

    def unit(self, unit: str) -> dict[str, str]:
        """What `systemctl show` says, for `PROPERTIES`."""
        return dict(line.split("=", 1) for line in self.lines("unit", unit))

    def processes(self, unit: str) -> list[Process]:
        """All processes of the unit."""
        return _processes(self.lines("processes", unit))

    def listening(self, unit: str) -> list[Listener]:
        """The TCP sockets on which processes of the unit listen."""
        ours = {process.pid for process in self.processes(unit)}
        return [listener for listener in self._listeners() if listener.pids & ours]

    @property
    def listeners(self) -> list[Listener]:
        """All listening TCP sockets."""
        return list(self._listeners())

    def _listeners(self) -> Iterator[Listener]:
        for line in self.lines("listening"):
            address, _, port = line.split()[3].rpartition(":")
            pids = frozenset(int(pid) for pid in re.findall(r"pid=(\d+)", line))
            yield Listener(address.strip("[]").split("%")[0], int(port), pids)

    def writable(self, unit: str) -> list[str] | None:
        """What of its model the service itself could write; None when it does not run."""
        lines = self.lines("writable", unit)
        return lines[:-1] if lines else None

    def holders_of_key(self, where: str) -> list[Process]:
        """The processes that have the key in their "command_lines" or in their "environments"."""
        return _processes(self.lines(f"key_in_{where}"))

    def count_of_key(self, where: str) -> int:
        """In how many lines of the "journal" or of the "unit_properties" the key stands."""
        return int("".join(self.lines(f"key_in_{where}")) or 0)


def _processes(lines: list[str]) -> list[Process]:
    fields = (line.split(None, 2) for line in lines)
    # one that ended meanwhile has no user any more
    return [Process(int(pid), int(rest[0]), "".join(rest[1:])) for pid, *rest in fields if rest]


def script(plan: HostPlan, deep: bool = False) -> str:
    """The shell text that gathers everything the checks of this plan look at.

    Args:
        plan: the host's.
        deep: whether models generate without a server as well, which takes a minute and a model's memory.
    """
    text = re.sub(r"(?m)^ *#.*\n", "", SCRIPT.read_text())
    values = {
        "USER": plan.user,
        "MANIFEST": MANIFEST,
        "PROPERTIES": ",".join(PROPERTIES),
        "STAMP": stamp.FILE,
        "BYTECODE": BYTECODE,
        "CREDENTIALS": str(Path(TOKENS).parent),
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    calls = list(map(shlex.join, _calls(plan)))
    if deep:
        calls += [f"generator={shlex.quote(GENERATOR.read_text())}", *map(shlex.join, _generations(plan))]
    return "\n".join([text, *calls, "block end"])


def _calls(plan: HostPlan) -> Iterator[list[str]]:
    yield ["host"]
    unused = plan.ollama.removed_paths if plan.ollama else ()
    yield [
        "gone",
        *plan.removed_models,
        *unused,
        *(f"/etc/systemd/system/{unit}" for unit in plan.removed_services),
    ]
    if plan.environment:
        pins = {name for part in plan.environment.pins.values() for name in part}
        modules = " ".join(module for name, module in MODULES.items() if name in pins)
        computed = arguments(plan, plan.environment) if "torch" in plan.environment.pins else []
        there = (plan.environment.prefix, plan.environment.lock_file)
        yield ["environment", CONDA_PREFIX, *there, CHECK, modules, *computed]
    for model in plan.models:
        yield ["model", model.directory]
    for service in plan.services:
        yield ["service", service.unit, service.model.directory]
    if plan.gateway:
        yield ["service", UNIT, CONFIGURATION]
    if any(service.needs_key for service in plan.services):
        yield ["secrets", CONFIGURATION]


def _generations(plan: HostPlan) -> Iterator[list[str]]:
    """Each model that vLLM serves, once per engine that is planned."""
    done = set()
    for service in plan.services:
        if plan.environment is None or service.engine != "vllm" or service.model.directory in done:
            continue
        done.add(service.model.directory)
        options = {name.replace("-", "_"): service.flags[name] for name in LOADING if name in service.flags}
        variables = [f"{name}={value}" for name, value in service.environment.items()]
        for engine in GENERATORS:
            yield [
                *("generate", engine, plan.environment.prefix, service.model.directory),
                *(json.dumps(options), *variables),
            ]


def parse(text: str) -> Evidence | None:
    """The gathered text in blocks; None when it broke off."""
    blocks: dict[str, list[str]] = {}
    current: list[str] = []
    # a file may hold other signs that Python would take for the end of a line
    for line in text.split("\n"):
        if line.startswith("@@"):
            current = blocks.setdefault(line[2:], [])
        else:
            current.append(line)
    return Evidence(blocks) if "end" in blocks else None
