"""The chat page in a browser, as a person uses it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_engine import READY, FakeEngine, fake_state

from corral.chat.builtin import CHATML
from corral.engine.messages import Output, Status, Timings
from corral.errors import Unavailable

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    # on its way out it leaves what it has of an event loop to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TIMEOUT = 20_000
"""Milliseconds for whatever a page waits for."""
THINKS = "{% for m in messages %}{{ m.content }}{% endfor %}{% if false %}<think></think>{% endif %}"
"""A template whose model thinks."""
MARKDOWN = """# A title

Some *emphasis*, **strong**, `code` and snake_case_name at https://example.org/a_b.

1. one
   - inner

     ```python
     x = "<b>"
     ```

2. two

| a | b |
|---|--:|
| 1 | 2 |

<img src=x onerror=alert(1)>"""


def words(text: str) -> list[str | Output | Exception]:
    return list(re.findall(r"\S+\s*|\s+", text))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-background-networking",
                "--disable-dev-shm-usage",  # containers have little of it
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, live: Callable[[Any], str]) -> Iterator[Callable[..., Any]]:
    """`visit(state)` opens its page. What the console says in the end must be in `page.expected`."""
    contexts, pages = [], []

    def open_page(state: Any, path: str = "/", **options: Any) -> Any:
        url = live(state)
        contexts.append(browser.new_context(**{"viewport": {"width": 1000, "height": 700}} | options))
        page = contexts[-1].new_page()
        page.set_default_timeout(TIMEOUT)
        page.said, page.expected = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())
        page.on("request", lambda request: page.said.append(request.url) if url not in request.url else None)
        page.goto(url + path)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.wait_for_timeout(50)
        assert [said for said in page.said if not any(part in said for part in page.expected)] == []
    for context in contexts:
        context.close()


def say(page: Any, text: str) -> None:
    page.keyboard.type(text)  # the field has the focus
    page.keyboard.press("Enter")


def answered(page: Any) -> None:
    page.wait_for_selector("#stop", state="hidden")


def test_an_answer_is_streamed_and_kept(visit: Any) -> None:
    engine = FakeEngine(["Hel", "lo ", "**you**"])
    page = visit(fake_state(engine))
    page.wait_for_selector("h1:text('tiny')")
    say(page, "Hi there")
    page.wait_for_selector(".text strong:text('you')")
    answered(page)
    stats = page.text_content(".assistant .tools span")
    assert re.fullmatch(r"3 tokens · 500\.0 tokens/s · first token after (\d+ ms|\d+\.\d s)", stats)
    assert "of 256 tokens" in page.text_content("#meter")
    page.reload()
    assert page.text_content(".title") == "Hi there"
    page.click(".title")
    assert page.text_content(".user .bubble") == "Hi there"
    assert page.text_content(".text") == "Hello you"
    say(page, "More")
    page.wait_for_selector(".assistant >> nth=1")
    answered(page)
    assert len(engine.submits[1].prompt) > len(engine.submits[0].prompt)  # the conversation so far
    page.click(".delete")
    page.wait_for_selector(".empty")
    page.reload()
    page.wait_for_selector("#new")
    assert page.locator(".title").count() == 0


def test_markdown_becomes_nodes_and_never_runs(visit: Any) -> None:
    page = visit(fake_state(FakeEngine(words(MARKDOWN))))
    say(page, "x")
    answered(page)
    for selector, text in {
        ".text h2": "A title",
        ".text em": "emphasis",
        ".text strong": "strong",
        ".text p > code": "code",
        ".text a[rel~=noopener][href='https://example.org/a_b']": "https://example.org/a_b",
        ".text ol > li > ul > li pre": 'x = "<b>"',
        ".text ol > li:nth-child(2)": "two",
        ".text th.right": "b",
        ".text td": "1",
        ".text > p:last-child": "<img src=x onerror=alert(1)>",
    }.items():
        assert page.locator(selector).first.text_content() == text, selector
    assert page.locator(".text img").count() == 0
    assert page.locator(".text ol").count() == 1


@pytest.mark.parametrize(
    "text",
    ["a `" * 3000, "a " + "`" * 9000, "**a " * 2400, "a **b __c ~~d *e _f " * 450, "> " * 5000, "- " * 5000],
)
def test_strange_text_takes_no_time(visit: Any, text: str) -> None:
    page = visit(fake_state(FakeEngine([text])))
    page.wait_for_selector("h1:text('tiny')")
    took = page.evaluate(
        """async (text) => {
            const { showMarkdown } = await import("./markdown.js");
            const began = performance.now();
            showMarkdown(document.createElement("div"), text);
            return performance.now() - began;
        }""",
        text,
    )
    assert took < 2000


def test_thoughts_are_folded(visit: Any) -> None:
    page = visit(fake_state(FakeEngine(words("<think>\nWell, well.\n</think>\n\nYes.")), template=THINKS))
    say(page, "x")
    page.wait_for_selector(".text:has-text('Yes.')")
    answered(page)
    assert page.text_content("summary").startswith("Thought for ")
    assert not page.is_visible("text=Well, well.")
    page.focus("summary")
    page.keyboard.press("Enter")
    assert page.is_visible("text=Well, well.")


def test_an_answer_of_thoughts_alone_says_so(visit: Any) -> None:
    page = visit(fake_state(FakeEngine(words("<think>\nWell, well.")), template=THINKS))
    say(page, "x")
    answered(page)
    assert page.text_content(".problem") == "It thought, and gave no answer."


def test_escape_stops_and_keeps_what_came(visit: Any) -> None:
    engine = FakeEngine(["some ", "words", "never"], hold=2)
    page = visit(fake_state(engine))
    say(page, "x")
    page.wait_for_selector(".text:has-text('some words')")
    assert page.is_visible("#stop")
    page.keyboard.press("Escape")
    page.wait_for_selector(".problem:has-text('Stopped.')")
    answered(page)
    page.wait_for_timeout(100)
    assert engine.cancelled
    engine.hold = None
    page.click("text=Again")
    page.wait_for_selector(".text:has-text('some wordsnever')")
    assert len(engine.submits[0].prompt) == len(engine.submits[1].prompt)


def test_an_answer_goes_on_while_another_chat_is_open(visit: Any) -> None:
    engine = FakeEngine(["one", "two"], hold=1)
    page = visit(fake_state(engine))
    say(page, "first")
    page.wait_for_selector(".text:has-text('one')")
    page.keyboard.press("Control+Shift+O")
    page.wait_for_selector(".empty")
    assert page.is_visible("#send")
    assert page.locator("li.busy").count() == 1
    assert not engine.cancelled
    page.click(".title")
    assert page.text_content(".text") == "one"
    page.click("#stop")
    answered(page)


def test_a_message_is_edited(visit: Any) -> None:
    page = visit(fake_state(FakeEngine()))
    say(page, "Frist")
    answered(page)
    page.click("text=Edit")
    assert page.input_value("#input") == "Frist"
    page.keyboard.press("Escape")  # nothing is lost
    assert page.input_value("#input") == ""
    assert page.text_content(".text") == "Hello"
    page.click("text=Edit")
    page.keyboard.press("Control+A")
    say(page, "First")
    answered(page)
    assert page.locator(".bubble").all_text_contents() == ["First"]
    assert page.locator(".text").all_text_contents() == ["Hello"]


def test_settings_are_sent_and_kept(visit: Any) -> None:
    engine = FakeEngine()
    page = visit(fake_state(engine, CHATML + "{{ 'thinking' if enable_thinking else 'not thinking' }}"))
    page.wait_for_selector("[name=top_k][placeholder='40']", state="attached")
    page.click("#open-settings")
    page.fill("[name=system]", "Be brief.")
    page.fill("[name=temperature]", "0")
    page.fill("[name=max_tokens]", "7")
    page.select_option("[name=reasoning]", "off")
    page.keyboard.press("Escape")
    page.reload()
    say(page, "x")
    answered(page)
    (submit,) = engine.submits
    assert (submit.sampling.temperature, submit.max_tokens) == (0.0, 7)
    prompt = "".join(map(chr, submit.prompt))
    assert "Be brief." in prompt
    assert prompt.endswith("not thinking")


def test_a_key_is_asked_for(visit: Any) -> None:
    page = visit(fake_state(api_keys=("secret",)))
    page.expected = ["401"]
    page.click("text=enter one")
    page.keyboard.type("secret")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:text('tiny')")
    page.wait_for_selector("#notice", state="hidden")
    say(page, "x")
    page.wait_for_selector(".text:has-text('Hello')")


def test_it_waits_for_the_model(visit: Any) -> None:
    engine = FakeEngine()
    engine.status = Status(state="loading")
    page = visit(fake_state(engine))
    page.expected = ["503"]
    page.wait_for_selector("#notice:has-text('Loading model')")
    engine.status = Status(state="ready", ready=READY)
    page.wait_for_selector("h1:text('tiny')")
    page.wait_for_selector("#notice", state="hidden")


def test_errors_are_shown_before_and_in_a_stream(visit: Any) -> None:
    engine = FakeEngine([Unavailable("The queue is full")])
    page = visit(fake_state(engine))
    page.expected = ["503"]
    say(page, "x")
    page.wait_for_selector(".error:has-text('The queue is full')")
    engine.words = ["so ", "far", Unavailable("The engine died")]
    page.click("text=Again")
    page.wait_for_selector(".error:has-text('The engine died')")
    assert page.text_content(".text") == "so far"
    engine.words = ["so ", "far", Output(id="", finish_reason="length", stop_type="limit", timings=Timings())]
    page.click("text=Again")
    page.wait_for_selector(".problem:has-text('limit of tokens')")


def test_it_works_behind_a_prefix(visit: Any) -> None:
    page = visit(fake_state(api_prefix="/llm"), "/llm")
    say(page, "x")
    page.wait_for_selector(".text:has-text('Hello')")


def test_copying_works_over_plain_http(visit: Any) -> None:
    page = visit(fake_state(FakeEngine(["the answer"])))
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    say(page, "x")
    answered(page)
    page.click(".assistant .tools button >> nth=0")
    page.wait_for_selector("text=Copied")
    page.focus("#input")
    page.keyboard.press("Control+V")
    assert page.input_value("#input") == "the answer"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_has_all(visit: Any, scheme: str) -> None:
    text = (
        "```\n"
        + "x" * 300
        + "\n```\n| "
        + "| ".join(["wide cell"] * 12)
        + "|\n"
        + "|-" * 12
        + "|\n\n"
        + "y" * 300
    )
    page = visit(fake_state(FakeEngine([text])), color_scheme=scheme, viewport={"width": 360, "height": 640})
    assert not page.is_visible("#new")
    say(page, "x")
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("(box => box.scrollWidth <= box.clientWidth)(document.querySelector('#messages'))")
    page.click("#menu")
    assert page.is_visible("#new")
    page.mouse.click(350, 300)
    page.wait_for_selector("#new", state="hidden")


def test_two_pages_do_not_overwrite_each_other(visit: Any) -> None:
    page = visit(fake_state())
    other = page.context.new_page()
    other.goto(page.url)
    for each, text in (page, "one"), (other, "two"):
        each.bring_to_front()
        say(each, text)
        answered(each)
    page.wait_for_selector(".title:text('two')")
    page.reload()
    assert sorted(page.locator(".title").all_text_contents()) == ["one", "two"]
