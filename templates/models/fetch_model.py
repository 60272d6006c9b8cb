"""Brings one model to this host, whole or not at all. Run by a systemd unit; prints progress lines.

    fetch_model.py MODEL REVISION DIRECTORY ENDPOINT

The real `modelscope` client downloads into DIRECTORY.part, where a cut download goes on. Every file is then
checked against the hub's sizes and hashes, the manifest is written, and one rename publishes the directory.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from modelscope_hub import HubApi

ATTEMPTS = 5
MANIFEST = ".bringup.json"
RESERVE_BYTES = 1 << 30
# The client gives a file 3600 s in all, which kills large shards on slow lines. It resumes anyway.
CLIENT_SETTINGS = {
    "MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT": str(7 * 24 * 3600),
    "MODELSCOPE_DOWNLOAD_PARALLEL_WORKERS": "4",
    "MODELSCOPE_LOG_LEVEL": "40",
}


def main(model: str, revision: str, directory: str, endpoint: str) -> None:
    final, staging = Path(directory), Path(directory + ".part")
    files = listing(model, revision, endpoint)
    if final.exists() and not staging.exists():
        # something is wrong with it, or this would not run: mend it where no server reads
        final.rename(staging)
    staging.mkdir(parents=True, exist_ok=True)
    check_space(staging, files)
    for attempt in range(1, ATTEMPTS + 1):
        download(model, revision, staging, endpoint, sum(file["size"] for file in files.values()))
        wrong = [path for path, file in files.items() if not matches(staging / path, file)]
        if not wrong:
            break
        say(f"attempt {attempt} of {ATTEMPTS}: {len(wrong)} files wrong or missing: {', '.join(wrong[:3])}")
        for path in wrong:
            forget_wrong_bytes(staging / path, files[path])
        time.sleep(min(2**attempt, 30))
    else:
        sys.exit(
            f"{model}@{revision}: {endpoint} did not give {len(wrong)} files rightly: {', '.join(wrong[:5])}"
        )
    publish(model, revision, endpoint, staging, final, files)
    unlisted = sum(not file["sha256"] for file in files.values())
    caveat = f"; the hub gives no sha256 for {unlisted} of them, so only their sizes are" if unlisted else ""
    say(f"{len(files)} files, {gib(sum(file['size'] for file in files.values()))}, all verified{caveat}")


def listing(model: str, revision: str, endpoint: str) -> dict[str, dict]:
    """Path -> size in bytes and sha256 (None where the hub gives none) of every file of the revision."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            found = HubApi(endpoint=endpoint).list_repo_files(model, "model", revision=revision)
            break
        except Exception as error:
            last = str(error)
            if "not found" in last.lower() or "404" in last or attempt == ATTEMPTS:
                sys.exit(f"{model}@{revision}: {endpoint} does not list it: {last.splitlines()[0][:300]}")
            time.sleep(2**attempt)
    files = {file.path: {"size": file.size, "sha256": file.sha256} for file in found if file.type != "tree"}
    if not files:
        sys.exit(f"{model}@{revision}: {endpoint} lists no files. Check the model's name and the revision.")
    for path in files:
        if path.startswith("/") or ".." in Path(path).parts:
            sys.exit(f"{model}@{revision}: the hub lists {path!r}, which leads out of the model's directory.")
    return files


def check_space(staging: Path, files: dict[str, dict]) -> None:
    there = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
    needed = sum(file["size"] for file in files.values()) - there + RESERVE_BYTES
    free = shutil.disk_usage(staging).free
    if free < needed:
        sys.exit(f"{staging.parent}: {gib(free)} free, {gib(needed)} needed for the model. Make room there.")


def download(model: str, revision: str, staging: Path, endpoint: str, total: int) -> None:
    client = Path(sys.executable).with_name("modelscope")
    command = [
        client,
        "download",
        model,
        "--revision",
        revision,
        "--local-dir",
        staging,
        "--max-workers",
        "4",
    ]
    environment = os.environ | CLIENT_SETTINGS | {"MODELSCOPE_ENDPOINT": endpoint}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        reporter = threading.Thread(target=report, args=(process, staging, total), daemon=True)
        reporter.start()
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        lines = [line.strip() for line in output.replace("\r", "\n").splitlines() if line.strip()]
        say(f"modelscope exit {process.returncode}: {' | '.join(lines[-2:])[:400]}")


def report(process: subprocess.Popen, staging: Path, total: int) -> None:
    started, first = time.monotonic(), None
    while process.poll() is None:
        there = sum(path.stat().st_blocks * 512 for path in staging.rglob("*") if path.is_file())
        first = there if first is None else first
        rate = (there - first) / max(time.monotonic() - started, 0.1)
        left = f", {(total - there) / rate:.0f} s left" if rate > 0 and total > there else ""
        say(f"{min(there / total, 1) if total else 1:.0%} of {gib(total)}, {rate / 2**20:.1f} MiB/s{left}")
        time.sleep(2)


def matches(path: Path, file: dict) -> bool:
    if not path.is_file() or path.stat().st_size != file["size"]:
        return False
    return file["sha256"] is None or not file["sha256"] or sha256(path) == file["sha256"]


def forget_wrong_bytes(path: Path, file: dict) -> None:
    """A partial file may be resumed; one of full size with another hash is removed."""
    if path.is_file() and path.stat().st_size >= file["size"]:
        path.unlink()


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def publish(
    model: str, revision: str, endpoint: str, staging: Path, final: Path, files: dict[str, dict]
) -> None:
    """Removes what the hub does not list, writes the manifest, makes all of it durable, renames."""
    for path in sorted(staging.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and str(path.relative_to(staging)) not in files:
            path.unlink()
    entries = {
        path: {
            "size": file["size"],
            "sha256": file["sha256"] or sha256(staging / path),
            "listed": bool(file["sha256"]),
            "mtime_ns": (staging / path).stat().st_mtime_ns,
        }
        for path, file in files.items()
    }
    manifest = {
        "model": model,
        "revision": revision,
        "endpoint": endpoint,
        "verified": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": entries,
    }
    (staging / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
    os.sync()
    staging.rename(final)


def gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
