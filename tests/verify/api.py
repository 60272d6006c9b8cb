"""A service's OpenAI-style API, used as any client uses it."""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import testinfra.host
from openai.types.chat import ChatCompletionMessage
from pydantic import SecretStr

from plan.host import ServicePlan, literal
from tests.verify.connection import is_jumped_to, port_of

ANSWER_SECONDS = 300
MOST_TOKENS = 32
# What OpenAI-style clients send to a server that asks for no key.
NO_KEY = SecretStr("EMPTY")


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
    def of(
        cls, service: ServicePlan, host: testinfra.host.Host, key: SecretStr | None, certificate: str | None
    ) -> Iterator["Api"]:
        """The planned address from here; loopback, and what is behind a jump host, through the connection.

        `certificate`: the one that the host made for itself, as PEM; it alone is trusted then.
        """
        given = key if key and service.needs_key else NO_KEY
        trust: ssl.SSLContext | bool = True
        if service.fronted:
            trust = ssl.create_default_context(cadata=certificate) if certificate and service.tls else True
            if not is_jumped_to(host):
                yield cls(service.url, service.served_name, given, trust)
                return
        with port_of(host, service.address, service.port) as (address, port):
            url = f"http{'s' if service.tls else ''}://{literal(address)}:{port}"
            yield cls(url, service.served_name, given, trust, service.address)

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


def _words(message: ChatCompletionMessage) -> str:
    """What the model said, its reasoning included: a short answer may be nothing else."""
    extra = message.model_extra or {}
    parts = (message.content, extra.get("reasoning"), extra.get("reasoning_content"))
    return "".join(part for part in parts if part)
