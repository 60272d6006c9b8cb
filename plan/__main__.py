"""`python -m plan`: decisions for hosts that one does not have yet. Exit 0; 1 refused; 2 bad input."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from plan import arguments, bundle_command, explain, lock_command, models, smi
from plan.answer import Decision, Machine, MemoryFit, Refusal, Wish
from plan.arguments import BAD_INPUT, Parser
from plan.checkpoint import from_directory
from plan.errors import PlanError
from plan.fit import FitWish, decide_fit
from plan.fixes import NEW_GLIBC
from plan.gpus import Gpu
from plan.hub import Hub, is_model_id
from plan.models import ModelFacts
from plan.profile import NEWEST
from plan.resolve import decide

REFUSED = 1


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = arguments.parser()
    options = parser.parse_args(argv)
    commands = {
        "explain": _explain,
        "fit": _fit,
        "parse-smi": _parse_smi,
        "lock": _lock,
        "diff": _diff,
        "bundle": _bundle,
    }
    try:
        return commands[options.command](options, parser)
    except PlanError as error:
        print(f"python -m plan {options.command}: {' '.join(error.sentences)}", file=sys.stderr)
        return BAD_INPUT


def _explain(options: argparse.Namespace, parser: Parser) -> int:
    cards = _cards(options, parser)
    if options.manage_driver and not options.driver:
        parser.error("--manage-driver: there is no --driver to replace; a bare host is given one anyway")
    if options.driver and not cards:
        parser.error("--driver: there is no --gpu that it drives")
    machine = Machine(
        gpus=cards,
        driver=options.driver,
        os=None if options.glibc else options.os,
        glibc=options.glibc,
        architecture=options.architecture or _architecture(cards),
        memory_gib=options.memory,
    )
    facts = _facts(options.model, options.hub) if options.engine == "vllm" else None
    answer = decide(machine, _wish(options), facts)
    if options.json:
        print(json.dumps(answer.to_json(), indent=2))
    elif isinstance(answer, Decision):
        print(explain.decision(answer))
    else:
        print(explain.refusal(answer))
    return 0 if answer.ok else REFUSED


def _wish(options: argparse.Namespace) -> Wish:
    return Wish(
        engine=options.engine,
        model=options.model,
        vllm=options.vllm,
        torch=options.torch,
        python=options.python,
        policy=options.policy,
        prefer=options.prefer,
        manage_driver=options.manage_driver or not options.driver,
        tensor_parallel=options.tensor_parallel,
        max_model_len=options.max_model_len,
        gpu_memory_utilization=options.gpu_memory_utilization,
        kv_cache_dtype=options.kv_cache_dtype,
    )


def _cards(options: argparse.Namespace, parser: Parser) -> tuple[Gpu, ...]:
    cards: tuple[Gpu, ...] = tuple(options.gpu)
    if options.gpu_count and len(cards) != 1:
        parser.error("--gpu-count: needs exactly one --gpu; name each card of a mixed host by itself")
    if options.tensor_parallel and not cards:
        parser.error("--tensor-parallel: there is no --gpu to share the model")
    return cards * (options.gpu_count or 1)


def _architecture(cards: tuple[Gpu, ...]) -> str:
    return "aarch64" if any(gpu.grace for gpu in cards) else "x86_64"


def _facts(model: str | None, endpoint: str) -> ModelFacts | None:
    """The facts of a model that is not in the tables: of a directory, or from its hub."""
    if model is None or models.lookup(model):
        return None
    if is_model_id(model) and not Path(model).is_dir():
        with Hub(endpoint) as hub:
            return hub.facts(model)
    directory = Path(model).expanduser()
    if not directory.is_dir():
        raise PlanError([f"{model}: is no directory and no hub id. Write organisation/name, or a path."])
    return from_directory(directory)


def _fit(options: argparse.Namespace, parser: Parser) -> int:
    cards = _cards(options, parser)
    if not cards:
        parser.error("--gpu: is missing. Name the card, for example --gpu L40S.")
    if options.tensor_parallel and not options.gpu_count and len(cards) == 1:
        cards = cards * options.tensor_parallel
    facts = _facts(options.model, options.hub) or models.lookup(options.model)
    assert facts is not None
    wish = FitWish(
        vllm=options.vllm or NEWEST,
        tensor_parallel=options.tensor_parallel,
        max_model_len=options.max_model_len,
        utilization=options.gpu_memory_utilization,
        kv_cache_dtype=options.kv_cache_dtype,
    )
    found = decide_fit(facts, cards, wish)
    if isinstance(found, MemoryFit):
        print(_json_fit(found) if options.json else explain.fit(facts.id, found))
        return 0
    refusal = Refusal(found, _fixes(options, facts, cards))
    print(json.dumps(refusal.to_json(), indent=2) if options.json else explain.refusal(refusal))
    return REFUSED


def _fixes(options: argparse.Namespace, facts: ModelFacts, cards: tuple[Gpu, ...]) -> tuple[str, ...]:
    """What the resolver would change: it knows which builds of a model run on these cards at all."""
    machine = Machine(gpus=cards, glibc=NEW_GLIBC, architecture=_architecture(cards))
    wish = Wish(
        model=facts.id,
        vllm=options.vllm,
        tensor_parallel=options.tensor_parallel,
        max_model_len=options.max_model_len,
        gpu_memory_utilization=options.gpu_memory_utilization,
        kv_cache_dtype=options.kv_cache_dtype,
    )
    answer = decide(machine, wish, None if models.lookup(facts.id) else facts)
    return answer.fixes if isinstance(answer, Refusal) else ()


def _json_fit(found: MemoryFit) -> str:
    memory: dict[str, Any] = dict(vars(found))
    return json.dumps({"ok": True, "memory": memory}, indent=2)


def _parse_smi(options: argparse.Namespace, _: Parser) -> int:
    try:
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise PlanError([f"{options.file}: {reason}. Give a saved output of nvidia-smi -q -x."]) from None
    report = smi.parse(text)
    print(json.dumps(report.to_json(), indent=2) if options.json else explain.smi(report))
    return 0


def _lock(options: argparse.Namespace, _: Parser) -> int:
    return lock_command.write(options)


def _diff(options: argparse.Namespace, _: Parser) -> int:
    return lock_command.diff(options)


def _bundle(options: argparse.Namespace, _: Parser) -> int:
    return bundle_command.collect(options)


def _run() -> int:
    """`main`, for a reader that may close the pipe before everything is printed."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    return code


if __name__ == "__main__":
    sys.exit(_run())
