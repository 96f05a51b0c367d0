"""Each refusal names an address that explains it, to people and to programs."""

from marketplace.portal.problem_pages import EXPLANATIONS
from marketplace.runtime.settings import Settings
from marketplace.web.problems import PROBLEMS
from tests.builders.portal import Browser
from tests.builders.service import serve


def test_every_code_of_a_refusal_is_explained_in_sentences() -> None:
    assert {kind.slug for kind in PROBLEMS.values()} <= EXPLANATIONS.keys()
    for explanation in EXPLANATIONS.values():
        assert explanation.meaning.endswith("."), explanation
        assert "`" not in explanation.title


async def test_the_type_of_a_refusal_leads_to_its_explanation(settings: Settings) -> None:
    async with serve(settings) as api:
        refusal = (await api.call("GET", "/v1/wallet", key="")).json()
        told = (await api.call("GET", refusal["type"], key="")).json()
        assert (told["code"], told["status"], told["title"]) == (refusal["code"], 401, refusal["title"])
        assert {
            row["code"] for row in (await api.call("GET", "/problems", key="")).json()["data"]
        } == EXPLANATIONS.keys()
        browser = Browser(api)
        page = await browser.get(refusal["type"], accept="text/html")
        assert page.headers["content-type"].startswith("text/html")
        assert told["meaning"].split("`")[0].split("'")[0][:20] in page.text
        assert (await browser.get("/problems/nothing", accept="application/json")).status_code == 404
