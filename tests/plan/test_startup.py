"""What a starting server is at, from lines that vLLM prints."""

import pytest

from plan.startup import stage

# vLLM 0.32.0 on a CPU, as a host's journal had them
QUIET = "Starting vllm-chat.service - vLLM serves Qwen/Qwen2.5-Tiny-Instruct..."
BANNER = (
    "(APIServer pid=1333) INFO 11-22 17:37:15 [api_utils.py:347]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.32.0"
)
ARCHITECTURE = (
    "(APIServer pid=1333) INFO 11-22 17:38:05 [model.py:733] Resolved architecture: Qwen2ForCausalLM"
)
EAGER = (
    "(APIServer pid=1333) WARNING 11-22 17:38:05 [vllm.py:1712] TORCH_COMPILE_DISABLE is set, disabling "
    "torch.compile. This is equivalent to setting -cc.mode=none and a range of graphs"
)
ENGINE = (
    "(EngineCore pid=1582) INFO 11-22 17:38:32 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with "
    "config: model='/srv/models/x', compilation_config={'mode': 0, 'cudagraph_mode': 0}"
)
SHARDS = (
    "\rLoading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]"
    "\rLoading safetensors checkpoint shards:  25% Completed | 1/4 [00:01<00:05,  1.9s/it]"
)
SERVES = "(APIServer pid=1333) INFO:     Application startup complete."


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([QUIET], ""),
        ([QUIET, BANNER], "loading its libraries"),
        ([BANNER, ARCHITECTURE, EAGER], "reading the model's configuration"),
        ([ARCHITECTURE, ENGINE, "anything else"], "starting the engine"),
        ([ENGINE, SHARDS], "loading the weights, 25%"),
        ([SHARDS, SERVES], "is asked a question"),
        ([], ""),
    ],
)
def test_the_newest_stage_is_told(lines: list[str], words: str) -> None:
    assert stage("\n".join(lines)) == words
