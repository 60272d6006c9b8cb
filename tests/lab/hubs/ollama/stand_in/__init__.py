"""A stand-in for Ollama: its commands, its HTTP API, its store, its pulls; no inference, it says noise.

    ollama serve | pull MODEL | create MODEL -f FILE | run MODEL PROMPT | show MODEL | list | ps | rm MODEL

What it stands in for: names, the layout of the store (manifests/REGISTRY/NAMESPACE/MODEL/TAG, blobs/sha256-X,
-partial while a pull is under way), pulls that go on where they were cut, the pruning of partial files at a
start unless OLLAMA_NOPRUNE is set, the key pair in $HOME, the environment's settings. Whatever the registry,
it asks the one address that the archive came with, by plain HTTP. It imports nothing of this repository.
"""
