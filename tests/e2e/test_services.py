"""Services at night: two on one host behind its front, and what befalls them; in order, on one host.

The real vLLM serves. `active` shall mean that the model answers, whatever happens.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from plan.gateway import routes
from plan.probe_gateway import fingerprint
from tests.e2e import streams
from tests.e2e.deploys import HOSTS, Run, deploy, on, until
from tests.lab import memory
from tests.lab.layout import REPOSITORY, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.usefixtures("fleet")]

HOST = HOSTS[0]
LAB = Lab.from_environment()
ADDRESS = f"{LAB.prefix}.11"
CHAT, SECOND = 8000, 8001
TINY = {"extra_args": ["--kv-cache-memory-bytes", str(64 * 1024**2)], "max_model_len": 2048}
ADAPTER = "lab/Qwen2.5-Tiny-LoRA"
# whatever is asked, the model is told the same
DEAF = "{% for message in messages %}{% endfor %}<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"
GONE: dict[str, object] = {"state": "absent"}
# vLLM on two shared cores: a start takes about 40 s when nothing else runs
START_SECONDS = 400


def change(
    *options: str,
    second: dict[str, object] | None = None,
    chat: dict[str, object] | None = None,
    **access: object,
) -> Run:
    """A run for the one host, with TLS, and a second service with the same model."""
    model = json.loads((LAB.hubs / "sources.json").read_text())["model"]
    template = LAB.hubs.parent / "deaf.jinja"
    template.write_text(DEAF)
    own = {"served_name": "second", "chat_template": str(template), "lora": {"other": f"{ADAPTER}@v1"}}
    serve: dict[str, object] = {"second": {"model": model} | own | TINY | (second or {})}
    if chat:
        serve["chat"] = chat
    data = [f"serve={json.dumps(serve)}", f"access={json.dumps({'tls': 'on'} | access)}"]
    data += [f"models={json.dumps({ADAPTER: {'state': 'absent'}})}"] if second == GONE else []
    return deploy(*options, "--limit", HOST, *(word for one in data for word in ("--data", one)))


def well(run: Run) -> Run:
    assert run.code == 0, run.errors[-4000:]
    return run


@pytest.fixture(scope="module")
def both(bare_hosts: None) -> Iterator[Run]:
    """The run after which two services are there; the host is left with one, without TLS."""
    yield well(change("--json"))
    well(change(second=GONE, tls="off"))


def key() -> str:
    return LAB.api_key.read_text().strip()


def certificate() -> str:
    return ssl.get_server_certificate((ADDRESS, CHAT))


def client(port: int = CHAT, given: str | None = None) -> httpx.Client:
    shown = key() if given is None else given
    headers = {"Authorization": f"Bearer {shown}"} if shown else {}
    trust = ssl.create_default_context(cadata=certificate())
    return httpx.Client(
        base_url=f"https://{ADDRESS}:{port}", headers=headers, verify=trust, trust_env=False, timeout=120
    )


def answer(port: int = CHAT) -> str:
    """What the model of a port says; raises when it does not."""
    with client(port) as http:
        model = http.get("/v1/models").raise_for_status().json()["data"][0]["id"]
        question = {"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "你好"}]}
        reply = http.post("/v1/chat/completions", json=question).raise_for_status().json()
        return str(reply["choices"][0]["message"]["content"])


def answers(port: int = CHAT) -> bool:
    try:
        return bool(answer(port).strip())
    except (httpx.HTTPError, OSError):
        return False


def state(service: str) -> str:
    return on(HOST, f"systemctl show -P ActiveState vllm-{service}.service")


def main_process(service: str) -> str:
    return on(HOST, f"systemctl show -P MainPID vllm-{service}.service")


def engine(service: str) -> list[int]:
    """The processes of a service but its server, by their numbers on the host."""
    main = main_process(service)
    assert main != "0", f"{service} does not run"
    children = "pgrep -P $1 | while read -r pid; do echo $pid; sh /run/children $pid; done"
    on(HOST, f"echo '{children}' >/run/children")
    return [int(pid) for pid in on(HOST, f"sh /run/children {main}").split()]


# Writes a line for each time at which a unit says "active" for five seconds on end while its model does not
# answer: so long does a server take at most to find that its engine is gone.
WATCH = """
set -u; unit=$1; port=$2; model=$3; since=
body='{"model":"'$model'","max_tokens":1,"prompt":"a"}'
while sleep 1; do
    if [ "$(systemctl show -P ActiveState $unit)" != active ] ||
        curl --silent --fail --max-time 20 --output /dev/null --header 'Content-Type: application/json' \\
            --data "$body" http://127.0.0.1:$port/v1/completions; then since=; continue; fi
    now=$(date +%s); since=${since:-$now}
    [ $((now - since)) -lt 5 ] || echo "$unit was active and did not answer at $(date +%T)" >>/run/lies
done
"""


def watch(service: str, port: int, model: str) -> None:
    """Leaves the watcher on the host, until its next boot."""
    script = json.dumps(WATCH)
    on(
        HOST,
        f"printf %b {script} >/run/watch; rm -f /run/lies; "
        f"systemd-run --quiet --unit=watch-{service} sh /run/watch vllm-{service}.service {port} {model}",
    )


def lies() -> str:
    return on(HOST, "cat /run/lies 2>/dev/null")


def test_two_services_of_one_host_answer_each_on_its_port(both: Run) -> None:
    assert answer(CHAT).strip() and answer(SECOND).strip()
    with client(SECOND) as http:
        assert [one["id"] for one in http.get("/v1/models").json()["data"]] == ["second", "other"]


def test_a_model_and_its_adapter_answer_otherwise(both: Run) -> None:
    question = {"prompt": "你好", "max_tokens": 16, "temperature": 0}
    with client(SECOND) as http:
        said = [
            http.post("/v1/completions", json=question | {"model": name}).raise_for_status().json()
            for name in ("second", "other", "second")
        ]
    base, adapted, again = (one["choices"][0]["text"] for one in said)
    assert base.strip() and adapted.strip()
    assert base == again != adapted


def test_the_operators_chat_template_is_what_the_model_is_told(both: Run) -> None:
    def told(text: str) -> int:
        asked = {"model": "second", "max_tokens": 1, "messages": [{"role": "user", "content": text}]}
        reply = http.post("/v1/chat/completions", json=asked).raise_for_status().json()
        return int(reply["usage"]["prompt_tokens"])

    with client(SECOND) as http:
        assert told("short") == told("a question of very many more words than that one had")


def test_the_fingerprint_that_the_deploy_showed_is_that_of_the_certificate(both: Run) -> None:
    # in the plan's table it is folded over several lines
    assert fingerprint(certificate()) in re.sub(r"[\s│|]", "", both.errors)


def test_nothing_but_the_front_can_be_reached_from_outside(both: Run) -> None:
    open_to_others = on(HOST, "ss -Hltn | awk '{print $4}' | grep -v -e '^127\\.' -e '^\\[::1\\]' -e ':22$'")
    assert set(open_to_others.split()) == {f"{ADDRESS}:{CHAT}", f"{ADDRESS}:{SECOND}"}
    assert on(HOST, "systemctl is-enabled nginx.service") == "disabled"


def test_who_has_no_key_is_refused_on_every_route_that_the_server_has(both: Run) -> None:
    served = json.loads(on(HOST, "curl --silent http://127.0.0.1:18000/openapi.json"))["paths"]
    listed = {route.path for route in routes("vllm")}
    assert {"/tokenize", "/metrics", "/health", "/load"} <= set(served)
    with client(given="") as nobody, client(given="x" * 32) as wrong, client() as known:
        for path, methods in served.items():
            method = next(iter(methods)).upper()
            refused = 401 if path in listed else 404
            assert nobody.request(method, path).status_code == refused, path
            assert wrong.request(method, path).status_code == refused, path
            assert path in listed or known.request(method, path).status_code == 404, path


def test_a_question_about_probabilities_does_not_end_the_engine(both: Run) -> None:
    question = {"model": "second", "prompt": "a", "max_tokens": 2, "logprobs": 2}
    with client(SECOND) as http:
        reply = http.post("/v1/completions", json=question)
    assert reply.status_code == 200, reply.text
    assert state("second") == "active"


def test_a_hundred_megabytes_and_slow_senders_are_refused_and_the_service_lives(both: Run) -> None:
    slow = [_slow() for _ in range(50)]
    with client() as http:
        reply = http.post("/v1/chat/completions", content=b"x" * 100_000_000)
        assert reply.status_code == 413
    assert answer().strip()
    until("the end of slow senders", lambda: all(_closed(one) for one in slow), timeout_seconds=60)
    assert answer().strip()


def _slow() -> ssl.SSLSocket:
    """A connection that begins a request and never ends it."""
    context = ssl.create_default_context(cadata=certificate())
    opened = context.wrap_socket(socket.create_connection((ADDRESS, CHAT)), server_hostname=ADDRESS)
    opened.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    opened.settimeout(0.05)
    return opened


def _closed(connection: ssl.SSLSocket) -> bool:
    """Whether the other side has hung up; drips a little further where it has not."""
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def many() -> httpx.AsyncClient:
    """A client of the second service that opens as many connections as it needs."""
    return httpx.AsyncClient(
        base_url=f"https://{ADDRESS}:{SECOND}",
        headers={"Authorization": f"Bearer {key()}"},
        verify=ssl.create_default_context(cadata=certificate()),
        trust_env=False,
        timeout=300,
        limits=httpx.Limits(max_connections=None),
    )


@pytest.fixture(scope="module")
def replaced(both: Run) -> tuple[Run, list[str]]:
    """The run that changes the second service and the front, while clients stream, and how they fared."""
    changed: dict[str, object] = {"max_model_len": 1024}
    return asyncio.run(
        streams.meanwhile(many, "second", lambda: change("-vvv", second=changed, requests_per_second=99))
    )


def test_a_changed_service_answers_before_the_old_one_goes_and_no_stream_breaks(
    replaced: tuple[Run, list[str]],
) -> None:
    run, ended = replaced
    well(run)
    assert "the new one starts beside the one that serves" in run.output + run.errors
    assert set(ended) == {"whole"}
    assert len(ended) > 20
    with client(SECOND) as http:
        assert http.get("/v1/models").json()["data"][0]["max_model_len"] == 1024
    left = on(HOST, "ls /run/bringup/front; ls /run/systemd/system | grep second; ss -Hltn | grep :1900")
    assert left == ""


def test_the_key_is_not_in_what_the_deploy_says_nor_in_its_report(
    replaced: tuple[Run, list[str]],
) -> None:
    said = well(replaced[0]).output + replaced[0].errors
    assert "systemctl reload bringup-gateway" in said
    assert key() not in said
    written = re.search(r"Report: (\S+)/report\.html", said)
    assert written
    files = [path for path in (REPOSITORY / written[1]).rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if key() in path.read_text(errors="replace")]


def disturbed(*commands: str) -> list[str]:
    """How 200 streams ended that were under way when the commands ran on the host."""
    disturb = partial(on, HOST, "; ".join((*commands, "echo disturbed")))
    said, ended = asyncio.run(streams.two_hundred(many, "second", disturb))
    assert said == "disturbed"
    return ended


def test_two_hundred_streams_outlive_a_reload_of_the_front(both: Run) -> None:
    found = disturbed("systemctl reload bringup-gateway")
    assert set(found) == {"whole"}


def test_streams_are_finished_or_end_in_an_error_when_their_service_restarts(both: Run) -> None:
    found = disturbed("systemctl --no-block restart vllm-second")
    assert not [one for one in found if one.startswith("cut")], found
    assert "whole" in found
    with client(SECOND) as http:
        starting = http.get("/v1/models")
    assert starting.status_code in (200, 503)
    until("the second service", lambda: answers(SECOND), START_SECONDS)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No byte is left where the first service keeps what it makes for itself."""
    cache = "/var/cache/bringup/vllm-chat"
    left = on(
        HOST,
        f"mount -t tmpfs -o size=64k,mode=700,uid=$(id -u bringup),gid=$(id -g bringup) full {cache}; "
        f"head -c 200k /dev/zero >{cache}/full; df --output=avail {cache} | tail -n 1",
    )
    assert left == "0"
    yield
    on(HOST, f"umount --lazy {cache}")


def test_a_killed_server_on_a_full_disk_and_an_engine_without_memory_serve_again_without_a_hand(
    both: Run, full_disk: None
) -> None:
    model = json.loads((LAB.hubs / "sources.json").read_text())["model"]
    watch("chat", 18000, model)
    server = main_process("chat")
    on(HOST, f"kill -9 {server}")
    with memory.starving(LAB.host(HOST), engine("second")) as counter:
        # the kernel's own OOM killer, when the answers want memory
        until("the end of the engine", lambda: not answers(SECOND) and memory.kills(counter) > 0, 300)
    # until then the kernel held it up, looking for memory
    watch("second", 18001, "second")
    until("the end of the server", lambda: main_process("chat") != server)
    until("the end of the engine's server", lambda: state("second") != "active", 120)
    until("both again", lambda: answers(CHAT) and answers(SECOND), START_SECONDS)
    until(
        "both to be active", lambda: (state("chat"), state("second")) == ("active", "active"), START_SECONDS
    )
    assert lies() == ""


def test_a_service_that_shall_be_absent_goes_with_its_cache_and_the_other_is_not_touched(both: Run) -> None:
    before = main_process("chat")
    well(change("--json", second=GONE))
    left = on(
        HOST,
        "ls -d /etc/systemd/system/vllm-second* /etc/bringup/previous/vllm-second* "
        f"/var/cache/bringup/vllm-second /etc/bringup/chat-templates/* /srv/models/{ADAPTER} 2>/dev/null; "
        "ss -Hltn | grep -c -e :18001 -e :8001",
    )
    assert left == "0"
    assert main_process("chat") == before


def test_damaged_weights_are_never_active_and_whole_ones_serve_after_a_reboot(both: Run) -> None:
    on(
        HOST,
        "rm -rf /srv/whole && mkdir /srv/whole && cd /srv/models/Qwen/*/current/ && "
        "cp -p *.safetensors /srv/whole && "
        # the header stays: a truncated or shapeless file would be refused when it is read
        "for file in *.safetensors; do dd if=/dev/zero of=$file bs=4096 seek=4 conv=notrunc status=none "
        "count=$(($(stat -c %s $file) / 4096 - 4)); done",
    )
    boot = on(HOST, "cat /proc/sys/kernel/random/boot_id")
    on(HOST, "systemctl reboot")
    until("the reboot", lambda: on(HOST, "cat /proc/sys/kernel/random/boot_id") not in ("", boot))
    said = "journalctl --boot --quiet --unit=vllm-chat.service | grep -c 'answered with nothing'"
    until("a look at the damage", lambda: on(HOST, said) not in ("", "0"), START_SECONDS)
    assert state("chat") != "active"
    assert not answers()
    on(HOST, "cp -p /srv/whole/* /srv/models/Qwen/*/current/ && rm -r /srv/whole")
    until("the whole model", lambda: state("chat") == "active" and answers(), START_SECONDS)


def test_a_flag_that_this_vllm_lacks_is_refused_while_the_service_runs_on(both: Run) -> None:
    before = main_process("chat")
    run = change(second=GONE, chat={"flags": {"no-such-flag": 1}})
    assert run.code == 1
    assert "this vLLM takes no --no-such-flag: correct serve.chat.flags" in run.output + run.errors
    assert (main_process("chat"), answers()) == (before, True)


def test_what_does_not_serve_beside_the_old_one_leaves_that_alone(both: Run) -> None:
    unit = "cat /etc/systemd/system/vllm-chat.service"
    before = (on(HOST, unit), main_process("chat"))
    # the flag is there, so only a start shows that its value is wrong
    run = change(second=GONE, chat={"flags": {"load-format": "nonsense"}})
    said = run.output + run.errors
    assert run.code == 1
    assert re.search(r"service chat: does not serve after \d+ s", said), said[-3000:]
    assert "load-format" in said
    assert "the one that serves goes on" in said
    assert (on(HOST, unit), main_process("chat")) == before
    assert (state("chat"), answers()) == ("active", True)
