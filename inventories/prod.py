"""Your hosts: copy this file, or edit it. A model per host is all that is required.

    pyinfra --dry inventories/prod.py deploy.py     shows the plan of every host, changes nothing
    pyinfra inventories/prod.py deploy.py           makes it true

A name is what `ssh NAME` reaches: DNS, or your ~/.ssh/config (jump hosts, ports, users).
What all of these hosts share stands in group_data/prod.py; a value here wins over one there.
"""

# Two hosts with the same model. Tensor parallelism, context length and vLLM's version are decided
# from the GPUs and the driver that each host has; every decision can be set here instead.
chat = [
    ("gpu-01.rack1", {"serve": {"qwen": {"model": "Qwen/Qwen2.5-72B-Instruct"}}}),
    ("gpu-02.rack1", {"serve": {"qwen": {"model": "Qwen/Qwen2.5-72B-Instruct"}}}),
]

# A host with an older driver that nobody may change, and a smaller model held to a context of 8192 tokens.
legacy = [
    (
        "gpu-07.rack2",
        {
            "driver": {"managed": False},
            "serve": {"small": {"model": "Qwen/Qwen2.5-7B-Instruct", "max_model_len": 8192}},
        },
    ),
]

# Ollama, on a host with or without a GPU. It asks nobody for a key itself; beyond loopback the front does.
small = [("gpu-03.rack1", {"serve": {"small": {"engine": "ollama", "model": "qwen2.5:7b"}}})]

# No GPU at all: torch and vLLM in their CPU builds.
cpu = [("cpu-01", {"serve": {"tiny": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}})]
