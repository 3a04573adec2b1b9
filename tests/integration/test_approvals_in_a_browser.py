"""The pages for approvals in a real browser: what a person sees and can press, and what nobody can make them run.

What they claim is held over HTTP in test_approvals.py, too; here it is seen. MLCP_TEST_PICTURES keeps the pictures.
"""

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_approvals import asked, count, person, prod
from tests.support.api import Api
from tests.support.browser import Page, browser

__all__ = ["prod"]  # a fixture
pytestmark = [pytest.mark.integration, pytest.mark.slow]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>{{7*7}} javascript:alert(4)"
PHONE = (360, 740)


def _kept(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("MLCP_TEST_PICTURES", str(tmp_path)))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _sign_in(page: Page, url: str, key: str) -> None:
    page.open(f"{url}/pages/approvals")
    assert page.address().endswith("/pages/sign-in")
    page.type("input[name=key]", key)
    page.click("button")
    assert page.address() == f"{url}/pages/approvals"


def _fits(page: Page, what: str) -> None:
    """Nothing has to be scrolled for sideways, and what is to be pressed is large enough for a finger."""
    wide, low = page.evaluate(
        "[document.documentElement.scrollWidth,"
        " Math.min(...[...document.querySelectorAll('main button')].map(b => b.getBoundingClientRect().height), 99)]"
    )
    assert wide <= PHONE[0], f"{what} is {wide} wide"
    assert low >= 32, f"a button of {what} is {low} high"


async def test_a_person_signs_in_sees_what_will_happen_and_approves_it(prod: Api, tmp_path: Path) -> None:
    approval = await asked(prod, reason="Fewer blocked cards at the same loss.")
    key = await prod.key("approver", person="Ben")

    def look() -> Page:
        kept = _kept(tmp_path)
        with browser(tmp_path) as page:
            page.resize(1_000, 800)
            page.open(f"{prod.url}/pages/sign-in")
            page.picture(kept / "sign-in.png")
            _sign_in(page, prod.url, key)
            page.picture(kept / "list.png")
            page.click(f"a[href='/pages/approvals/{approval['id']}']")
            shown = page.text()
            page.picture(kept / "approval.png")
            for words in (
                "Version 2 of fraud goes live instead of version 1",
                "Fewer blocked cards",
                "average_precision",
            ):
                assert words in shown, shown
            assert page.evaluate("document.querySelectorAll('svg circle').length") >= 2
            page.resize(*PHONE, phone=True)
            for name in ("approval", "list", "sign-in"):
                where = {"approval": f"/approvals/{approval['id']}", "list": "/approvals", "sign-in": "/sign-in"}[name]
                page.open(f"{prod.url}/pages{where}")
                _fits(page, name)
                page.picture(kept / f"{name}-phone.png")
            page.open(f"{prod.url}/pages/approvals/{approval['id']}")
            page.type("#approve-reason", "Looked at the interval.")
            page.click("form[action$='/approve'] button")
            done = page.text()
            page.picture(kept / "approved-phone.png")
            assert "Approved by Ben." in done
            assert "Looked at the interval." in done
            assert page.evaluate("document.querySelectorAll('textarea').length") == 0
            assert all(address.startswith((prod.url, "about:", "data:")) for address in page.asked)
            return page

    await asyncio.to_thread(look)
    assert await count(prod, "rollouts") == 2


async def test_a_person_rejects_with_a_reason_and_the_author_has_no_buttons(prod: Api, tmp_path: Path) -> None:
    approval = await asked(prod)
    ben, ann = await prod.key("approver", person="Ben"), await prod.key("approver", person="Ann")

    def look() -> None:
        where = f"{prod.url}/pages/approvals/{approval['id']}"
        with browser(tmp_path) as page:
            _sign_in(page, prod.url, ann)
            page.open(where)
            assert "You asked for it yourself" in page.text()
            assert page.evaluate("document.querySelectorAll('main button').length") == 0
            page.click("header button")
            assert page.address().endswith("/sign-in")
            _sign_in(page, prod.url, ben)
            page.open(where)
            page.type("#reject-reason", "Too early in the month.")
            page.click("form[action$='/reject'] button")
            assert "Too early in the month." in page.text()
            assert "rejected" in page.text()

    await asyncio.to_thread(look)
    assert await count(prod, "rollouts") == 1


@pytest.mark.parametrize("forgery", ["e.value = '0'.repeat(64)", "e.remove()"])
async def test_a_form_that_is_not_of_this_page_is_refused(prod: Api, tmp_path: Path, forgery: str) -> None:
    approval = await asked(prod)
    key = await prod.key("approver", person="Ben")

    def look() -> None:
        with browser(tmp_path) as page:
            _sign_in(page, prod.url, key)
            page.open(f"{prod.url}/pages/approvals/{approval['id']}")
            page.evaluate(f"(() => {{ const e = document.querySelector('main input[name=proof]'); {forgery}; }})()")
            page.type("#approve-reason", "seen")
            page.click("form[action$='/approve'] button")
            assert "did not come from a page of yours" in page.text()
            page.picture(_kept(tmp_path) / "refused.png")

    await asyncio.to_thread(look)
    assert await count(prod, "rollouts") == 1


async def test_no_text_of_anybody_is_ever_run(prod: Api, tmp_path: Path) -> None:
    author = await person(prod, HOSTILE[:110], "operator")
    approval: dict[str, Any] = await asked(prod, author, reason=HOSTILE)
    key = await prod.key("approver", person="<b onclick=alert(5)>Ben</b>")

    def look() -> None:
        with browser(tmp_path) as page:
            _sign_in(page, prod.url, key)
            for where in ("", f"/{approval['id']}", "/<script>alert(6)</script>"):
                page.open(f"{prod.url}/pages/approvals{where}")
                assert page.evaluate("document.querySelectorAll('script, img, b[onclick], svg[onload]').length") == 0
            page.open(f"{prod.url}/pages/approvals/{approval['id']}")
            assert HOSTILE in re.sub(r"\s+", " ", page.text())  # shown as it was written
            page.type("#reject-reason", HOSTILE)
            page.click("form[action$='/reject'] button")
            assert HOSTILE in re.sub(r"\s+", " ", page.text())
            assert page.dialogs == []
            assert all(address.startswith((prod.url, "about:", "data:")) for address in page.asked)

    await asyncio.to_thread(look)
