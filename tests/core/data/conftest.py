"""The small corpus, built once a session; tests copy nothing of it and write only under their own folder."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.core.data.small_corpus import SmallCorpus, make_small_corpus

# No test here depends on how busy the machine is.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> SmallCorpus:
    return make_small_corpus(tmp_path_factory.mktemp("small"))
