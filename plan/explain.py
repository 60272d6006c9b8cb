"""A decision, a refusal or a fit as text for a terminal."""

import io

from rich.console import Console
from rich.table import Table

from plan.answer import Decision, Failure, MemoryFit, Refusal
from plan.smi import SmiReport

WIDTH = 118


def decision(answer: Decision) -> str:
    """The pins with the reason of each, the flags, and what to know besides."""
    table = Table(show_edge=False, pad_edge=False)
    for column in ("part", "decided", "because", "source"):
        table.add_column(column, overflow="fold", no_wrap=column == "part")
    for reason in answer.why:
        table.add_row(reason.subject, reason.value, reason.because, reason.source)
    lines = [_text(table)]
    if answer.flags:
        lines.append("flags: " + " ".join(_flag(name, value) for name, value in answer.flags.items()))
    if answer.environment:
        lines.append("environment: " + " ".join(f"{k}={v}" for k, v in answer.environment.items()))
    lines += [f"warning: {warning}" for warning in answer.warnings]
    return "\n".join(lines)


def refusal(answer: Refusal) -> str:
    """What fails, and the smallest changes after which it does not."""
    lines = [_failure(failure) for failure in answer.failed]
    lines += [f"fix: {fix}" for fix in answer.fixes]
    return "\n".join(lines)


def fit(model_id: str, found: MemoryFit) -> str:
    """Where the memory of one GPU goes."""
    table = Table(show_edge=False, pad_edge=False, title=model_id, title_justify="left")
    table.add_column("of each GPU")
    table.add_column("GiB", justify="right")
    used = found.weights_gib_per_gpu + found.kv_gib_per_gpu + found.reserve_gib
    rows = (
        ("weights", found.weights_gib_per_gpu),
        ("KV cache", found.kv_gib_per_gpu),
        ("activations, CUDA and graphs", found.reserve_gib),
        (f"usable at gpu_memory_utilization {found.gpu_memory_utilization}", found.usable_gib),
    )
    for name, size_gib in rows:
        table.add_row(name, f"{size_gib:.2f}")
    split = f"tensor parallel {found.tensor_parallel}, pipeline parallel {found.pipeline_parallel}"
    tokens = f"context {found.max_model_len}, KV cache {found.kv_tokens} tokens"
    assert used <= found.usable_gib + 0.05
    return f"{_text(table)}\n{split}; {tokens}; {found.disk_gib} GiB on disk"


def smi(report: SmiReport) -> str:
    """What an output of nvidia-smi says, GPU by GPU."""
    table = Table(show_edge=False, pad_edge=False)
    for column in ("name", "uuid", "pci_device_id", "memory_mib", "compute_capability", "mig"):
        table.add_column(column, overflow="fold", no_wrap=column == "uuid")
    for gpu in report.gpus:
        mig = {True: "on", False: "off", None: "none"}[gpu.mig]
        cells = (gpu.name, gpu.uuid, gpu.pci_device_id, gpu.memory_mib, gpu.compute_capability)
        table.add_row(*("unknown" if cell is None else str(cell) for cell in cells), mig)
    head = f"driver_version {report.driver_version}, cuda_version {report.cuda_version or 'unknown'}"
    return f"{head}\n{_text(table)}"


def _flag(name: str, value: object) -> str:
    dashed = "--" + name.replace("_", "-")
    return dashed if value is True else f"{dashed} {value}"


def _failure(failure: Failure) -> str:
    return f"fails: {failure.constraint}: {failure.fact}. [{failure.source}]"


def _text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, force_terminal=False, highlight=False, markup=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n")
