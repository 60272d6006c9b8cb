"""Publishes the tiny chat model on the stand-in hub: branch master, tag v1."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy
import tokenizers

from tests.lab.hubs import chat_model, recipe, repository, tokenizer

FIRST_COMMIT_SECONDS = 1_700_000_000
DAY_SECONDS = 86_400


def build_models(root: Path) -> None:
    """ROOT/models with the one model; v1 is the commit before master's."""
    sources = [Path(str(module.__file__)) for module in (chat_model, tokenizer, repository)]
    versions = (numpy.__version__, tokenizers.__version__)
    recipe.build_folder(root / "models", recipe.recipe_hash(Path(__file__), *sources, versions), publish)


def publish(models: Path) -> None:
    folder = models / chat_model.NAME
    published = repository.Repository()
    for day, revision in enumerate(("v1", "master")):
        with tempfile.TemporaryDirectory(dir=models) as temporary:
            chat_model.write_model(Path(temporary), revision)
            seconds = FIRST_COMMIT_SECONDS + day * DAY_SECONDS
            commit = published.commit(Path(temporary), folder / "objects", f"Publish {revision}", seconds)
        if revision != "master":
            published.tags[revision] = commit.id
    published.save(folder)
