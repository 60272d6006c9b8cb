"""Publishes the tiny chat model and its adapter on the stand-in hub: branch master, tag v1."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy
import tokenizers

from tests.lab.hubs import adapter, chat_model, recipe, repository, tokenizer

FIRST_COMMIT_SECONDS = 1_700_000_000
DAY_SECONDS = 86_400


def build_models(root: Path) -> None:
    """ROOT/models with the model, of which v1 is the commit before master's, and its adapter."""
    sources = [Path(str(module.__file__)) for module in (chat_model, adapter, tokenizer, repository)]
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
    publish_adapter(models / adapter.NAME)


def publish_adapter(folder: Path) -> None:
    published = repository.Repository()
    with tempfile.TemporaryDirectory(dir=folder.parents[1]) as temporary:
        adapter.write_adapter(Path(temporary))
        commit = published.commit(Path(temporary), folder / "objects", "Publish", FIRST_COMMIT_SECONDS)
    published.tags["v1"] = commit.id
    published.save(folder)
