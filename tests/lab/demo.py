"""The end of `make demo`: each lab host is asked a question, as any client would ask it."""

import os
import sys

from openai import OpenAI, OpenAIError

from tests.lab.layout import REPOSITORY, Lab

QUESTION = "服务正常吗？"
PORT = 8000


def main() -> int:
    lab = Lab.from_environment()
    key = (lab.directory / "api-key").read_text().strip()
    for number in range(1, int(os.environ.get("BRINGUP_LAB_HOSTS", "2")) + 1):
        address = f"{lab.prefix}.1{number}"
        client = OpenAI(base_url=f"http://{address}:{PORT}/v1", api_key=key, timeout=120)
        try:
            model = client.models.list().data[0].id
            reply = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": QUESTION}], max_tokens=24, temperature=0
            )
        except OpenAIError as error:
            print(f"lab-{number}: http://{address}:{PORT}/v1 did not answer: {error}")
            return 1
        print(f"\nlab-{number}  http://{address}:{PORT}/v1  {model}")
        print(f"  question: {QUESTION}")
        print(f"  answer:   {(reply.choices[0].message.content or '').strip()}")
    report = REPOSITORY / "runs" / "latest" / "report.html"
    if report.is_file():
        print(f"\nWhat was done, and why, on one page: {report.resolve()}")
    print(
        "\nThe model is a tiny one with random weights: that it answers is the point, not what.\n"
        "Look further: make lab-ssh (then: systemctl status vllm-chat), make verify, make lab-down"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
