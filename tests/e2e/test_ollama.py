"""A model by Ollama on a bare host of its own lab: served, unchanged by a second run, mended, taken off."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.deploys import PYINFRA, Run, until
from tests.e2e.test_lab_machines import own_lab
from tests.lab import hubs, machines, services
from tests.lab.hubs.ollama import Offer
from tests.lab.layout import REPOSITORY, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

STORE = "/srv/models/ollama"
HOST, UNIT, FILES_PORT = "lab-1", "ollama-small.service", 9200
FROM_LIBRARY = "qwen2.5:0.5b"
FROM_MODELSCOPE = "modelscope.cn/Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M"


@dataclass(frozen=True)
class Site:
    """A lab with one bare host, and what an operator's machine needs to deploy to it."""

    lab: Lab
    folder: Path
    offer: Offer

    def deploy(self, store: str = STORE, exposed: bool = False, **service: Any) -> Run:
        """Deploys one service; what is given replaces its settings. `exposed`: to the hosts' network."""
        wanted = service if "state" in service else {"engine": "ollama", "model": FROM_LIBRARY} | service
        self._write_inventory(wanted, store, exposed)
        started = time.monotonic()
        done = subprocess.run(
            self.command,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        run = Run(done.returncode, done.stdout, done.stderr, time.monotonic() - started)
        assert run.code == 0, run.errors[-4000:]
        return run

    @property
    def command(self) -> list[str]:
        return [str(PYINFRA), "-y", "--json", str(self.folder / "site.py"), "deploy.py"]

    def _write_inventory(self, service: dict[str, Any], store: str = STORE, exposed: bool = False) -> None:
        data = {
            "ssh_hostname": self.lab.host(HOST).address,
            "ssh_user": "root",
            "ssh_key": str(self.lab.login_key),
            "ssh_known_hosts_file": str(self.lab.known_hosts),
            "serve": {"small": service},
            "ollama": {"prune": True, "store": store},
            "sources": {
                "ollama": self.offer.base,
                "ollama_version": self.offer.version,
                "ollama_sha256": self.offer.sha256,
            },
        }
        if exposed:
            data["access"] = {
                "listen": f"{self.lab.prefix}.0/24",
                "api_key_file": str(self.lab.api_key),
                "monitoring": [self.lab.gateway],
            }
        (self.folder / "site.py").write_text(f"site = {[(HOST, data)]!r}\n")

    def on_host(self, script: str) -> str:
        return machines.run(HOST, script, timeout_seconds=60, lab=self.lab).stdout.strip()

    def faults(self, **switched: Any) -> None:
        """Switches the file server's faults; none clears them."""
        url = f"http://{self.lab.gateway}:{FILES_PORT}/_lab"
        subprocess.run(["curl", "-sf", "-o", "/dev/null", "-d", json.dumps(switched), url], check=True)

    def client(self, key: str = "") -> httpx.Client:
        """A client of the front, from this computer."""
        address = self.lab.host(HOST).address
        trust = ssl.create_default_context(cadata=ssl.get_server_certificate((address, 8000)))
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(
            base_url=f"https://{address}:8000", headers=headers, verify=trust, trust_env=False, timeout=60
        )

    def answer(self, model: str = FROM_LIBRARY, port: int = 8000) -> str:
        """The answer to a chat question, asked on the host itself."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "服务正常吗？"}]})
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        reply = json.loads(self.on_host(f"curl -sf -H 'Content-Type: application/json' -d '{body}' {url}"))
        return str(reply["choices"][0]["message"]["content"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    lab = own_lab(tmp_path_factory.mktemp("lab"), second_octet=110)
    try:
        machines.up(1, hubs=False, lab=lab)
        lab.hubs.mkdir()
        base = (lab.host(HOST).directory / "base").resolve()
        offer = hubs.build_ollama_alone(lab.hubs, base, f"http://{lab.gateway}:{FILES_PORT}")
        services.ensure_serving(lab)
        yield Site(lab, tmp_path_factory.mktemp("inventories"), offer)
    finally:
        machines.clean(lab)


def test_a_run_that_was_cut_in_its_pull_is_completed_by_the_next(site: Site) -> None:
    site.faults(rate=400_000, match="/blobs/")
    site._write_inventory({"engine": "ollama", "model": FROM_LIBRARY})
    partial = "ls /srv/models/ollama/blobs/*-partial"
    process = subprocess.Popen(
        site.command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    )
    deadline = time.monotonic() + 120
    while not site.on_host(f"{partial} 2>/dev/null"):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    process.kill()
    process.wait()
    machines.power_off(HOST, lab=site.lab)
    machines.boot(HOST, lab=site.lab)
    before = int(site.on_host(f"stat -c %s {partial.removeprefix('ls ')}"))
    site.faults()
    site.deploy()
    assert site.on_host(f"systemctl is-active {UNIT}") == "active"
    requests = map(json.loads, (site.lab.hubs / "requests.jsonl").read_text().splitlines())
    ranges = [request["range"] for request in requests if "/blobs/" in request["path"] and request["range"]]
    assert f"bytes={before}-" in ranges


def test_the_model_answers(site: Site) -> None:
    assert site.answer().strip()


def test_a_second_run_changes_nothing_and_restarts_nothing(site: Site) -> None:
    before = site.on_host(f"systemctl show -P MainPID {UNIT}")
    assert site.deploy().changed() == {}
    assert site.on_host(f"systemctl show -P MainPID {UNIT}") == before


def test_nothing_of_conda_or_vllm_is_on_the_host(site: Site) -> None:
    assert (
        site.on_host("ls -d /opt/bringup/conda /etc/bringup/environments 2>/dev/null; command -v python3")
        == ""
    )


def test_who_reaches_the_port_can_neither_delete_nor_pull_a_model(site: Site) -> None:
    for method, path, model in (
        ("DELETE", "/api/delete", FROM_LIBRARY),
        ("POST", "/api/pull", FROM_MODELSCOPE),
    ):
        script = (
            f'curl -s -X {method} -d \'{{"model":"{model}","stream":false}}\' http://127.0.0.1:8000{path}'
        )
        assert "ead-only" in site.on_host(script)
    assert site.answer().strip()


def test_a_damaged_file_of_the_store_is_brought_again(site: Site) -> None:
    site.on_host("truncate -s 1000 $(ls -S /srv/models/ollama/blobs/* | head -n 1)")
    assert "Pull the models" in site.deploy().changed()
    assert site.answer().strip()


def test_another_tag_takes_the_place_of_the_first_and_the_checks_agree(site: Site) -> None:
    site.deploy(model=FROM_MODELSCOPE)
    (manifest,) = site.on_host("cd /srv/models/ollama/manifests && find . -type f").splitlines()
    assert manifest == "./modelscope.cn/Qwen/Qwen2.5-0.5B-Instruct-GGUF/Q4_K_M"
    done = subprocess.run(
        [REPOSITORY / ".venv/bin/pytest", "-v", "tests/verify", "--inventory", str(site.folder / "site.py")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.findall(r"test_ollama\.py::.* PASSED", done.stdout)


def test_a_model_of_a_modelfile_serves_from_another_directory(site: Site) -> None:
    modelfile = site.folder / "desk"
    modelfile.write_text(f'FROM {FROM_LIBRARY}\nSYSTEM """Answer in one sentence."""\n')
    asked: dict[str, Any] = {"model": "desk", "ollama": {"modelfile": str(modelfile)}}
    site.deploy(store="/data/ollama", exposed=True, **asked)
    assert site.answer("desk", 18000).strip()
    environment = (
        f"OLLAMA_HOST=127.0.0.1:18000 HOME=/nonexistent /opt/bringup/ollama/{site.offer.version}/bin/"
    )
    assert site.on_host(f"{environment}ollama show desk") == "Answer in one sentence."
    assert len(site.on_host(f"{environment}ollama list").splitlines()) == 1 + len((FROM_LIBRARY, "desk"))
    assert site.on_host(f"find {STORE} -type f") == ""
    assert site.deploy(store="/data/ollama", exposed=True, **asked).changed() == {}


def test_others_reach_listed_routes_with_the_key_and_monitoring_its_health(site: Site) -> None:
    question = {"model": "desk", "messages": [{"role": "user", "content": "服务正常吗？"}]}
    with site.client() as nobody, site.client("x" * 32) as wrong:
        assert nobody.post("/v1/chat/completions", json=question).status_code == 401
        assert wrong.get("/api/tags").status_code == 401
        assert nobody.get("/health").status_code == 200
    with site.client(site.lab.api_key.read_text().strip()) as known:
        answer = known.post("/v1/chat/completions", json=question).raise_for_status().json()
        assert answer["choices"][0]["message"]["content"].strip()
        assert "desk:latest" in [model["name"] for model in known.get("/api/tags").json()["models"]]
        for method, path in (
            ("DELETE", "/api/delete"),
            ("POST", "/api/pull"),
            ("POST", "/api/create"),
            ("POST", "/api/copy"),
            ("HEAD", "/api/blobs/sha256:0"),
            ("GET", "/metrics"),
            ("GET", "/"),
        ):
            assert known.request(method, path, json={"model": "desk"}).status_code == 404, path


def test_a_changed_server_answers_before_the_old_one_goes(site: Site) -> None:
    modelfile = str(site.folder / "desk")
    before = site.on_host(f"systemctl show -P MainPID {UNIT}")
    changed = {"model": "desk", "ollama": {"modelfile": modelfile, "keep_alive": "1h"}}
    run = site.deploy(store="/data/ollama", exposed=True, **changed)
    assert "the new one starts beside the one that serves" in run.errors
    assert site.on_host(f"systemctl show -P MainPID {UNIT}") != before
    assert site.answer("desk", 18000).strip()
    assert site.on_host("ls /run/bringup/front; ls /run/systemd/system | grep second") == ""


def test_three_failed_starts_end_in_failed_and_a_deploy_says_why_and_mends_it(site: Site) -> None:
    program = f"/opt/bringup/ollama/{site.offer.version}/bin/ollama"
    said = "Error: model requires more system memory (5.6 GiB) than is available (3.3 GiB)"
    site.on_host(
        f"mv {program} {program}.whole; printf '#!/bin/sh\\necho \"{said}\"; exit 1\\n' >{program}; "
        f"chmod 755 {program}; systemctl reset-failed {UNIT}; systemctl restart {UNIT}"
    )
    until(
        "the end of its starts",
        lambda: site.on_host(f"systemctl show -P ActiveState {UNIT}") == "failed",
        timeout_seconds=120,
    )
    assert site.on_host(f"journalctl -o cat -u {UNIT} | grep -c '{said}'") == "3"
    failed = subprocess.run(site.command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "The model is larger than the host's free memory: choose a smaller tag in serve.small.model." in (
        failed.stderr
    )
    assert said in failed.stderr
    site.on_host(f"mv {program}.whole {program}")
    assert subprocess.run(site.command, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0
    assert site.on_host(f"systemctl is-active {UNIT}") == "active"


def test_a_service_that_shall_be_absent_leaves_nothing_of_ollama(site: Site) -> None:
    site.deploy(store="/data/ollama", state="absent")
    ours = "/opt/bringup/ollama /data/ollama/* /etc/bringup/modelfiles/* /etc/systemd/system/ollama-*"
    ours += " /etc/bringup/gateway /var/cache/bringup /var/lib/bringup"
    assert site.on_host(f"ls -d {ours} 2>/dev/null; getent passwd bringup bringup-gateway") == ""
    assert site.deploy(store="/data/ollama", state="absent").changed() == {}
