"""What a server that is starting is at, in few words, from the newest lines of its journal."""

import re
from collections.abc import Iterator

# What vLLM says (0.8 to 0.32) -> what it is at then, in the order in which it happens.
_STAGES = (
    (r"version \d+\.\d+\.\d+", "loading its libraries"),
    (r"Resolved architecture|Using max model len", "reading the model's configuration"),
    (r"Initializing a V\d LLM engine", "starting the engine"),
    (r"Starting to load model", "loading the weights"),
    (r"Loading (?:safetensors|pt|bin).* checkpoint shards: +(?P<percent>\d+)% ", "loading the weights"),
    (r"[Mm]odel loading took|Loading weights took", "the weights are loaded"),
    (r"torch\.compile.*(?:range|graph)|Compiling a graph|Dynamo bytecode transform", "compiling"),
    (r"KV cache size|Maximum concurrency", "the memory is shared out"),
    (r"Capturing .*CUDA.?[Gg]raph[^:]*: +(?P<percent>\d+)%", "capturing CUDA graphs"),
    (r"Application startup complete|Starting vLLM API server|Started server process", "is asked a question"),
)
# vLLM tells what it was given, and what is switched off, in the same words.
_SETTINGS = re.compile(r"WARNING|non-default args|with config:.*compil")


def stage(lines: str) -> str:
    """The newest stage that these lines of a journal tell, with its percent; empty when they tell none.

    A bar that is drawn anew with carriage returns is one line for the journal: its last part counts.
    """
    return next(_stages(lines), "")


def _stages(lines: str) -> Iterator[str]:
    for line in reversed(re.split(r"[\r\n]+", lines)):
        told = _SETTINGS.split(line)[0] if "Initializing a V" not in line else line
        for pattern, words in _STAGES:
            if found := re.search(pattern, told):
                percent = found.groupdict().get("percent")
                yield f"{words}, {percent}%" if percent else words
