"""The small corpus, built once a session; tests copy nothing of it. One on a hub of this machine, new for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as hub_settings
import pytest
from hypothesis import settings

from tests.core.data.fake_hub import FakeHub, running
from tests.core.data.hub_corpus import COPY, HubCorpus, make_hub_corpus
from tests.core.data.small_corpus import SmallCorpus, make_small_corpus

# No test here depends on how busy the machine is.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> SmallCorpus:
    return make_small_corpus(tmp_path_factory.mktemp("small"))


@pytest.fixture
def corpus(tmp_path: Path) -> HubCorpus:
    folder = tmp_path / "task"
    folder.mkdir()
    return make_hub_corpus(folder)


@pytest.fixture
def hub(corpus: HubCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(hub_settings, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", False)
    with running({COPY: corpus.copy}) as hub:
        monkeypatch.setattr(hub_settings, "ENDPOINT", hub.url)
        template = hub_settings.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", hub.url)
        monkeypatch.setattr(hub_settings, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub
