"""A service's OpenAI-style API, used as any client uses it."""

import ipaddress
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from openai.types.chat import ChatCompletionMessage
from pydantic import SecretStr

from plan.host import ServicePlan, literal
from plan.probe import Probe
from tests.verify.connection import is_jumped_to, port_of, seen_as
from tests.verify.fleet import Planned

ANSWER_SECONDS = 300
MOST_TOKENS = 32
# What OpenAI-style clients send to a server that asks for no key.
NO_KEY = SecretStr("EMPTY")


def trusting(certificate: str) -> ssl.SSLContext:
    """Trusts this one certificate, the first of a PEM text, whoever has signed it and whatever it names.

    An operator's own authority is known to the clients, not to this machine; and a host is asked by its
    address, which a certificate need not name.
    """
    (first, *_) = x509.load_pem_x509_certificates(certificate.encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=first.public_bytes(Encoding.DER))
    return context


@dataclass(frozen=True)
class Streamed:
    """When the pieces of an answer came, in seconds since the question; a piece is a token."""

    times: tuple[float, ...]

    @property
    def tokens_per_second(self) -> float:
        """From the first piece to the last."""
        return (len(self.times) - 1) / max(self.times[-1] - self.times[0], 1e-6)


@dataclass(frozen=True)
class Api:
    """The API at `url`, whose certificate is for `named` where that is set; questions are greedy, short."""

    url: str
    model: str
    key: SecretStr
    trust: ssl.SSLContext | bool = True
    named: str = ""

    @classmethod
    @contextmanager
    def of(cls, service: ServicePlan, planned: Planned, key: SecretStr | None) -> Iterator["Api"]:
        """The planned address from here; loopback, and what is behind a jump host, through the connection."""
        given = key if key and service.needs_key else NO_KEY
        trust = _trust(planned) if service.tls else True
        scheme, there = "https" if service.tls else "http", asked_at(service, planned.probe)
        if service.fronted and not is_jumped_to(planned.connection):
            yield cls(f"{scheme}://{literal(there)}:{service.port}", service.served_name, given, trust)
            return
        with port_of(planned.connection, there, service.port) as (here, port):
            url = f"{scheme}://{literal(here)}:{port}"
            yield cls(url, service.served_name, given, trust, there)

    def get(self, path: str, key: SecretStr | None = None, method: str = "GET") -> httpx.Response:
        """The answer to a request for a path, without a key unless one is given.

        Raises:
            httpx.HTTPError: there is none.
        """
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        url = f"{self.url}{path}"
        with httpx.Client(timeout=30, trust_env=False, verify=self.trust, event_hooks=self._hooks) as client:
            return client.request(method, url, headers=headers)

    @property
    def _hooks(self) -> dict[str, list[Any]]:
        """What a client does to every request: the certificate is asked for by its own name."""
        return {"request": [self._name]} if self.named else {}

    def _name(self, request: Any) -> None:
        request.extensions["sni_hostname"] = self.named

    def client(self, key: SecretStr | None = None) -> openai.OpenAI:
        """A client with this key, else with the service's; it uses no proxy and asks once."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key=(key or self.key).get_secret_value(),
            timeout=ANSWER_SECONDS,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(
                trust_env=False, verify=self.trust, event_hooks=self._hooks
            ),
        )

    def answer(self, question: str) -> str:
        """The answer to one chat question; a model without a chat template is asked to go on with the text.

        Raises:
            openai.OpenAIError: there is none.
        """
        with self.client() as client:
            try:
                reply = client.chat.completions.create(
                    model=self.model,
                    messages=[{"role": "user", "content": question}],
                    max_tokens=MOST_TOKENS,
                    temperature=0,
                )
                return _words(reply.choices[0].message)
            except openai.BadRequestError as error:
                if "template" not in str(error):
                    raise
            text = client.completions.create(
                model=self.model, prompt=question, max_tokens=MOST_TOKENS, temperature=0
            )
            return text.choices[0].text

    def streamed(self, question: str) -> Streamed:
        """One streamed completion, as it came, empty pieces left out.

        Raises:
            openai.OpenAIError: there is none, or it broke off.
        """
        started = time.monotonic()
        with self.client() as client:
            stream = client.completions.create(
                model=self.model, prompt=question, max_tokens=MOST_TOKENS, temperature=0, stream=True
            )
            times = [time.monotonic() for chunk in stream if chunk.choices and chunk.choices[0].text]
        return Streamed(tuple(moment - started for moment in times))


def monitored(service: ServicePlan, planned: Planned) -> set[str]:
    """The paths of a service that the front opens to this machine, which is one of those that monitor it."""
    gateway = planned.plan.gateway
    if not gateway or not _among(gateway.monitoring, service, planned):
        return set()
    return {path for front in gateway.fronts if front.name == service.name for path in front.monitored}


def is_shut_out(service: ServicePlan, planned: Planned) -> bool:
    """Whether the front answers chosen addresses alone, of which this machine has none."""
    clients = planned.plan.gateway.clients if planned.plan.gateway and service.fronted else ()
    return bool(clients) and not _among(clients, service, planned)


def _among(networks: Iterable[str], service: ServicePlan, planned: Planned) -> bool:
    wanted = [ipaddress.ip_network(network, strict=False) for network in networks]
    seen = seen_as(planned.connection, asked_at(service, planned.probe)) if wanted else set()
    return any(ipaddress.ip_address(address) in network for address in seen for network in wanted)


def asked_at(service: ServicePlan, probe: Probe) -> str:
    """Where the service is asked: one of the host's own addresses, when it listens on all of them."""
    listens = ipaddress.ip_address(service.address)
    own = (one for one in probe.addresses if ipaddress.ip_address(one).version == listens.version)
    return next(own, service.address) if listens.is_unspecified else service.address


def _trust(planned: Planned) -> ssl.SSLContext | bool:
    certificate, gateway = planned.certificate, planned.plan.gateway
    if not certificate or not gateway:
        return True
    # one that the host made for itself is made out to every address
    return (
        trusting(certificate)
        if gateway.certificate == "given"
        else ssl.create_default_context(cadata=certificate)
    )


def _words(message: ChatCompletionMessage) -> str:
    """What the model said, its reasoning included: a short answer may be nothing else."""
    extra = message.model_extra or {}
    parts = (message.content, extra.get("reasoning"), extra.get("reasoning_content"))
    return "".join(part for part in parts if part)
