"""The report's page in a real browser, headless: wide and narrow, with 200 hosts, without a network."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ops import report_files
from plan.report import Figure, HostReport, Problem, Report, Row, Step, from_json
from tests.e2e.tools import installed

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

ROWS = (Row("vllm", "0.32.0", "the newest release without a known risk"), Row("torch", "2.13.0", "for vLLM"))
# What the page is asked in the browser; a frame of some width tells as a window of that width would.
QUESTION = """<!doctype html><title>asked</title>
<iframe id=page src="{page}" style="width:{width}px;height:900px"></iframe>
<script>
const frame = document.getElementById("page");
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  const shown = () => [...page.querySelectorAll("details.host")].filter((host) => !host.hidden).length;
  const all = shown();
  const filter = page.getElementById("filter");
  filter.value = "gpu-007"; filter.dispatchEvent(new Event("input")); const filtered = shown();
  filter.value = ""; filter.dispatchEvent(new Event("input"));
  const troubled = page.getElementById("troubled"); troubled.click(); const bad = shown();
  page.getElementById("zh").click();
  const heading = page.querySelector("h2").innerText;
  const fetched = frame.contentWindow.performance.getEntriesByType("resource").length;
  document.title = [root.scrollWidth <= {width}, all, filtered, bad, heading, fetched].join("|");
}};
</script>"""


def fleet(count: int) -> Report:
    """A deploy to so many hosts, every tenth of which failed."""
    hosts = []
    for number in range(count):
        failed = number % 10 == 3
        problems = (
            Problem("service chat: does not serve after 412 s. Lower max_model_len.", "CUDA error\n" * 9),
        )
        step = Step("Install vLLM", number % 7, 30.0, "failed" if failed else "changed")
        figure = Figure("chat", "memory of its GPUs", "GiB", 70.0, 68.5)
        hosts.append(
            HostReport(
                f"gpu-{number:03d}.rack{number // 16}",
                "failed" if failed else "changed",
                problems=problems if failed else (),
                system="Ubuntu 24.04.1 LTS, Linux 6.8.0-60-generic",
                hardware="8 x NVIDIA H100 80GB HBM3",
                gpus=("NVIDIA H100 80GB HBM3",) * 8,
                services=("Qwen/Qwen2.5-72B-Instruct · https://10.1.2.3:8000/v1",),
                plan=ROWS,
                steps=(step,),
                figures=(figure,),
            )
        )
    return Report("deploy", "0.1.0", "2026-11-22T14:40:12+08:00", 60.0, "inventories/prod.py", tuple(hosts))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser, installed for this test alone where it is missing."""
    return installed("chromium")


# A verify of two lab hosts, on one of which somebody had edited a unit, stopped it, and opened a secret.
GENUINE = from_json((Path(__file__).parent / "reports/verify.json").read_text())


@pytest.mark.parametrize(
    ("report", "width", "told"),
    [(fleet(200), 390, (200, 1, 20)), (fleet(200), 1200, (200, 1, 20)), (GENUINE, 390, (2, 0, 1))],
    ids=["200 hosts on a phone", "200 hosts", "a run of the lab on a phone"],
)
def test_every_host_fits_is_sifted_and_speaks_chinese(
    chromium: str, tmp_path: Path, report: Report, width: int, told: tuple[int, int, int]
) -> None:
    page = tmp_path / "report.html"
    page.write_text(report_files.html(report))
    question = tmp_path / "question.html"
    question.write_text(QUESTION.format(page=page.name, width=width))
    done = subprocess.run(
        [
            *(chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", "--lang=en"),
            *("--virtual-time-budget=8000", "--dump-dom", f"file://{question}"),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found, done.stderr[-2000:]
    assert found[1].split("|") == ["true", *map(str, told), "问题", "0"]
