"""One hub for the tests of the documents: it takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.hubs import Serving, serving


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Yield a hub that was started with nothing configured."""
    with serving(tmp_path_factory.mktemp("checkout")) as running:
        yield running
