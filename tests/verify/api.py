"""A service's OpenAI-style API, used as any client uses it."""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import openai
import testinfra.host
from openai.types.chat import ChatCompletionMessage
from pydantic import SecretStr

from plan.host import ServicePlan
from tests.verify.connection import port_of

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
    """The API at `url`. Questions are greedy and short."""

    url: str
    model: str
    key: SecretStr
    trust: ssl.SSLContext | bool = True

    @classmethod
    @contextmanager
    def of(
        cls, service: ServicePlan, host: testinfra.host.Host, key: SecretStr | None, certificate: str | None
    ) -> Iterator["Api"]:
        """The planned address from here; a loopback address through the host's own connection.

        `certificate`: the one that the host made for itself, as PEM; it alone is trusted then.
        """
        given = key if key and service.needs_key else NO_KEY
        if service.fronted:
            trust = ssl.create_default_context(cadata=certificate) if certificate and service.tls else True
            yield cls(service.url, service.served_name, given, trust)
            return
        with port_of(host, service.address, service.port) as (address, port):
            literal = f"[{address}]" if ":" in address else address
            yield cls(f"http://{literal}:{port}", service.served_name, given)

    def get(self, path: str, key: SecretStr | None = None, method: str = "GET") -> httpx.Response:
        """The answer to a request for a path, without a key unless one is given.

        Raises:
            httpx.HTTPError: there is none.
        """
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        url = f"{self.url}{path}"
        return httpx.request(method, url, headers=headers, timeout=30, trust_env=False, verify=self.trust)

    def client(self, key: SecretStr | None = None) -> openai.OpenAI:
        """A client with this key, else with the service's; it uses no proxy and asks once."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key=(key or self.key).get_secret_value(),
            timeout=ANSWER_SECONDS,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(trust_env=False, verify=self.trust),
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
