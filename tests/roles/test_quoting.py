"""No value that the settings accept leaves the word it stands in: in a unit, a shell, a project file."""

import json
import shlex
import tomllib
from typing import Any

from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ops import environment as packages
from ops import task
from plan import operator_flags, project, settings
from plan.decide import plan_host
from plan.errors import SettingsError
from plan.host import HostPlan
from plan.probe import parse
from roles.conda import deploy as conda
from roles.models import deploy as models
from roles.vllm import deploy as vllm
from tests import probes
from tests.roles.systemd_words import settings as unit_settings
from tests.roles.systemd_words import words

BARE = parse(probes.answer(probes.BARE))
GOOD = {"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}}

# Signs that a setting may allow, and all that a shell, a unit, TOML or a path may read for itself.
LIKELY, SIGNS = 'aZ09_-./:=,+@~%! {}[]"', "'\\$`;&|<>()*?#\n\t\0é"


def text(start: str, signs: str = LIKELY) -> st.SearchStrategy[str]:
    """Texts that begin so: most of likely signs, some with any other among them."""
    likely = st.text(signs, max_size=12)
    unlikely = st.tuples(likely, st.sampled_from(SIGNS), likely).map("".join)
    return (likely | unlikely).map(start.__add__)


NAMES = text("a", "aZ09_-.")
MODELS = st.tuples(NAMES, NAMES).map("/".join) | text("Qwen/a")
URLS = text("https://host.example/a", "aZ09_-./%~+,=@") | text("https://host")

CANDIDATES = st.fixed_dictionaries(
    {
        "serve.chat.model": MODELS,
        "serve.chat.revision": text("v", "aZ09_-./"),
        "serve.chat.served_name": NAMES | MODELS,
        "serve.chat.port": st.integers(-3, 70000),
        "serve.chat.flags.json": text("{") | text("["),
        "serve.chat.flags.word": text("a"),
        "serve.chat.flags.number": st.integers() | st.floats(),
        "serve.chat.flags.switch": st.booleans(),
        "serve.chat.extra_args": st.lists(text("--word="), max_size=1)
        | st.tuples(text("--a"), text("b")).map(list),
        "environment.name": text("a", "abc09-"),
        "environment.packages": st.lists(st.tuples(NAMES, text("1", "ab09.+!")).map("==".join), max_size=2),
        "sources.models": URLS,
        "sources.wheels": URLS,
        "sources.wheels_extra": st.lists(URLS, max_size=2),
        "sources.wheels_links": st.just([]) | st.lists(URLS, max_size=2),
        "sources.torch": URLS,
        "sources.vllm": URLS,
        "sources.conda_installer": URLS,
        "sources.conda_channel": URLS,
    }
)


def accepted(candidates: dict[str, Any]) -> settings.Settings:
    """The settings with each of the candidates that they accept."""
    layers: list[dict[str, Any]] = [GOOD]
    for name, value in candidates.items():
        layer: Any = value
        for part in reversed(name.split(".")):
            layer = {part: layer}
        try:
            settings.read([*layers, layer])
        except SettingsError:
            continue
        layers.append(layer)
    return settings.read(layers)


many = hypothesis_settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    # to explain a failure takes longer than to read it
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)


@many
@given(CANDIDATES)
def test_a_unit_hands_every_value_to_vllm_as_it_was_written(candidates: dict[str, Any]) -> None:
    wanted = accepted(candidates)
    plan, environment = planned(wanted)
    (service,) = plan.services
    unit = list(unit_settings(vllm.unit_text(plan, environment, service)))
    assert [name for section, name, _ in unit if section == "Service" and name.startswith("Exec")] == [
        "ExecStart",
        "ExecStartPost",
    ]
    values = {name: value for _, name, value in unit}
    started = words(values["ExecStart"])
    fixed = ["--served-model-name", service.served_name, "--host", service.inner_address]
    fixed += ["--port", str(service.inner_port)]
    assert started[:3] == [f"{environment.prefix}/bin/vllm", "serve", service.model.directory]
    assert started[3:9] == fixed
    assert started[9:] == list(operator_flags.words(service.flags))
    assert words(values["ExecStartPost"])[2:] == [
        service.inner_url,
        service.served_name,
        str(service.start_timeout_seconds),
    ]
    variables = [words(value) for _, name, value in unit if name == "Environment"]
    assert variables == [[f"{name}={value}"] for name, value in service.environment.items()]
    assert values["RequiresMountsFor"] == service.model.directory


@many
@given(CANDIDATES)
def test_a_shell_hands_every_value_to_its_program_as_it_was_written(candidates: dict[str, Any]) -> None:
    plan, environment = planned(accepted(candidates))
    (model,) = plan.models
    made, started = map(
        shlex.split, script_of(models._download(plan, environment, model, False)).splitlines()
    )
    as_user = shlex.split(models.AS_USER)
    assert made == [*as_user, "mkdir", "-p", model.parent]
    program = [*as_user, f"{environment.prefix}/bin/python", "-B", f"{models.PROGRAMS}/fetch.py"]
    assert started[:-1] == ["exec", *program]
    job = json.loads(started[-1])
    assert [job[name] for name in ("model", "revision", "directory", "staging")] == [
        *(model.model, model.revision),
        *(model.directory, model.staging),
    ]
    assert (job["places"], job["pinned_by"]) == (list(plan.downloads.places), model.endpoint)
    assert (job["include"], job["exclude"]) == (list(model.include), list(model.exclude))
    addresses = environment.addresses
    install = shlex.split(script_of(packages.install_task(environment, "torch", "installing torch")))
    urls = [addresses.wheels, *addresses.wheels_extra, *addresses.wheels_links]
    assert [word for word in install if "://" in word] == [url for url in urls if url]
    (loop,) = [
        line
        for line in script_of(conda._installer(environment)).splitlines()
        if line.startswith("for url in ")
    ]
    assert shlex.split(loop.removesuffix("; do"))[3:] == list(environment.installer_urls)


def script_of(work: task.Task) -> str:
    """The script that systemd gets from the shell command that starts a task."""
    command = task.start_command(work).get_raw_value()
    launch = shlex.split(command[command.index("systemd-run") :].removesuffix("; fi"))
    assert launch[-3:] == ["/bin/sh", "-euc", work.script.replace("$", "$$")]
    assert f"--unit={work.unit}" in launch
    assert [word for word in launch if word.startswith("--setenv=")] == [
        f"--setenv={name}={value}" for name, value in sorted(work.environment.items())
    ]
    return work.script


@many
@given(CANDIDATES)
def test_a_project_file_holds_every_pin_and_address_as_planned(candidates: dict[str, Any]) -> None:
    _, environment = planned(accepted(candidates))
    written = tomllib.loads(project.text(environment))
    assert written["project"]["optional-dependencies"] == {
        part: [f"{name}=={version}" for name, version in pins.items()]
        for part, pins in environment.pins.items()
    }
    indexes = written["tool"]["uv"].get("index", [])
    assert {index["name"]: index["url"] for index in indexes} == dict(environment.only_from)
    assert all(index["explicit"] for index in indexes)


def planned(wanted: settings.Settings) -> tuple[HostPlan, Any]:
    plan = plan_host("host", wanted, BARE)
    assert plan.environment
    return plan, plan.environment
