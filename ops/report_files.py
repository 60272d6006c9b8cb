"""A report as files: `runs/TIME/report.json`, and a page that opens anywhere, without a network."""

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ops.chinese import TEMPLATES, translated
from plan.report import Report

# Where reports go instead of `runs` in the working directory.
VARIABLE = "BRINGUP_RUNS"


def write(report: Report) -> Path:
    """Writes both files into a folder of their own, and points `latest` at it.

    Returns:
        The page's path.

    Raises:
        OSError: the folder cannot be written to.
    """
    runs = Path(os.environ.get(VARIABLE) or "runs")
    folder = _folder(runs, report)
    (folder / "report.json").write_text(report.to_json())
    page = folder / "report.html"
    page.write_text(html(report))
    _point(runs / "latest", folder.name)
    return page


def _folder(runs: Path, report: Report) -> Path:
    """A new folder named after the time and the kind of run."""
    time = datetime.fromisoformat(report.started).strftime("%Y-%m-%dT%H%M%S")
    for number in range(1, 1000):
        folder = runs / (f"{time}-{report.kind}" + (f"-{number}" if number > 1 else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{runs}: has too many runs of {time}")


def _point(link: Path, name: str) -> None:
    beside = link.with_name(f".latest-{os.getpid()}")
    beside.symlink_to(name)
    beside.replace(link)


def html(report: Report) -> str:
    """The page: one file, with its styles, in both languages."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"t": _both, "seconds": _seconds, "number": _number}
    style = (TEMPLATES / "report.css").read_text()
    return environment.get_template("report.html.j2").render(report=report, style=Markup(style))


def _both(text: Any) -> Markup:
    """A text in both languages, of which the page shows one; what has no translation stays as it is."""
    english = str(text)
    chinese = translated(english)
    if chinese is None:
        return escape(english)
    return Markup('<span class="en">{}</span><span class="zh" lang="zh-CN">{}</span>').format(
        english, chinese
    )


def _seconds(value: float) -> str:
    """A duration for the eye: 0.4 s, 12 s, 3 min 05 s."""
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 90:
        return f"{value:.0f} s"
    return f"{int(value) // 60} min {int(value) % 60:02d} s"


def _number(value: float | None) -> str:
    """Three significant digits, thousands kept."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
