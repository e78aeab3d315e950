"""A browser for the pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.report.browser import Browser, binary, browsing


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if binary() is None:
        pytest.skip("Pages are looked at in Chromium: install Debian's `chromium`.")
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found
