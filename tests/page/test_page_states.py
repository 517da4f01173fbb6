"""The page when answers are late, missing or refused: faults on purpose, so a stub stands where the worker is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.page.stub import Stub, running

pytestmark = pytest.mark.page

WAIT_MS = 20_000


@pytest.fixture
def stub() -> Iterator[Stub]:
    """The stub, serving on a port of its own."""
    with running() as made:
        yield made


def in_state(page: Any, state: str) -> None:
    page.locator(f"#status[data-state={state}]").wait_for(timeout=WAIT_MS)


def test_a_worker_that_restores_is_waited_for(page: Any, stub: Stub) -> None:
    """While the worker answers 503 the page says that it is restoring, and shows the number when it comes."""
    stub.fail("/value", 503, times=2, headers={"Retry-After": "1"}, title="a partition is being restored")
    page.goto(f"{stub.url}/?metric=departures&basis=corrected&at=2013-02-01T00:00:00Z&tz=UTC")
    in_state(page, "restoring")
    in_state(page, "ready")
    assert int(page.locator("#value").get_attribute("data-value")) > 0


def test_a_value_that_is_absent_says_why(page: Any, stub: Stub) -> None:
    """A null is a dash and a reason, never a nought."""
    company = "carrier_code:ZZ"
    page.goto(
        f"{stub.url}/?metric=departure_delay_avg&basis=corrected&at=2013-02-20T00:00:00Z&window=7d&tz=UTC&company={company}"
    )
    in_state(page, "ready")
    value = page.locator("#value")
    assert value.get_attribute("data-value") == "" and value.get_attribute("data-reason") != ""
    assert page.locator("#reason").is_visible()


def test_text_from_data_stays_text(page: Any, stub: Stub) -> None:
    """A company whose name is markup is shown as that text, and nothing of it runs."""
    page.goto(f"{stub.url}/?metric=departures&basis=latest&tz=UTC")
    in_state(page, "ready")
    assert page.locator("#company", has_text="<img src=x").count() == 1
    assert page.locator("#company img").count() == 0 and page.title() != "owned"


def test_a_failed_answer_is_told_and_can_be_tried_again(page: Any, stub: Stub) -> None:
    """An error is a notice with what went wrong; trying again brings the number."""
    stub.fail("/value", 500, title="the worker failed to answer")
    page.goto(f"{stub.url}/?metric=departures&basis=corrected&at=2013-02-01T00:00:00Z&tz=UTC")
    in_state(page, "error")
    assert "the worker failed to answer" in page.locator("#notice").inner_text()
    page.locator("#notice-retry").click()
    in_state(page, "ready")
