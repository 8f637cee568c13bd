"""Time until a prompt is drawn on the dashboard's page, with the model warm, and waiting times of many users.

`python -m benchmarks.prompt_page [--json]`. A ratio is seconds / seconds of a dense product of two 2048 x 2048 matrices
on the same machine at the same time, as processors differ. *Drawn* means: tokens with their losses and features, the
next-token distribution, the attribution of the answer, every head in small and one in large; the cells of the lens
come after them. Chromium runs headless and without a graphics card.

The second part needs no browser: 20 users of whom two ask for prompts of 62 tokens at a time, each new, for 20 rounds;
the others click. Its ratio is the 95th percentile of the time until a reading, on the same scale.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.report import Result, at_most, main
from tools.chromium import FLAGS, chromium, serving

LIMITS = {62: 1.5, 250: 4.0}
"""Tokens -> seconds until everything is drawn, on a machine whose dense product takes `DENSE_SECONDS`."""
DENSE_SECONDS = 0.16
USERS_LIMIT = 4.0
REPEATS, ROUNDS, ASKING = 3, 20, 2
MODEL, FEATURES = "smollm2-135m", "neurons"
WORDS = "the old house near the river was sold in spring and its garden went wild after many quiet years "

DRAWN = """(last) => {
  const text = (id) => (document.getElementById(id) || {}).textContent || "";
  const attributed = document.querySelector("#prompt-share-bars .main-svg")
    && new RegExp(`after ␣?${last}`).test(text("prompt-shares"));
  return attributed && text("prompt-pattern").includes("From ")
    && document.querySelectorAll("#prompt-next li").length > 0 && text("prompt-facts").includes("tokens");
}"""


def prompt(n: int, number: int) -> str:
    """Return a text of `n` tokens, BOS included; `number` makes it a new one."""
    words = (WORDS * (1 + n // 15)).split()[: n - 3]
    return " ".join(words) + f" {number // 10 % 10} {number % 10}"


def run() -> list[Result]:
    """Measure the seconds until a prompt is drawn, and until a reading for one of many users."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = made_workspace(Path(folder) / "workspace")
        with serving(workspace) as base:
            return [*_in_the_browser(base), _many_users(workspace)]


def _in_the_browser(base: str) -> list[Result]:
    from playwright.sync_api import sync_playwright

    results = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.goto(f"{base}/prompt?features={FEATURES}&model={MODEL}&text=warm")
        wait_until(page, "() => document.querySelectorAll('#prompt-next li').length > 0", 300)
        for n, limit in LIMITS.items():
            seconds, dense = [], []
            for number in range(REPEATS):
                page.wait_for_timeout(1500)
                dense.append(dense_speed())
                seconds.append(_draw(page, prompt(n, number)))
            results.append(as_result(f"{n} tokens drawn", seconds, median(dense), limit))
        browser.close()
    return results


def _draw(page: Any, text: str) -> float:
    page.fill("#prompt-text", text)
    page.evaluate("() => document.getElementById('prompt-facts').textContent = ''")  # the next reading fills it
    started = time.perf_counter()
    page.click("#prompt-go")
    wait_until(page, DRAWN, 120, text[-1])
    return time.perf_counter() - started


def wait_until(page: Any, expression: str, limit: float, argument: str = "") -> None:
    end = time.monotonic() + limit
    while not page.evaluate(expression, argument):
        if time.monotonic() > end:
            raise TimeoutError(f"{limit:g} s passed before this was true: {expression}")
        page.wait_for_timeout(15)


def _many_users(workspace: Any) -> Result:
    """Let `ASKING` of 20 users run new prompts at the same time, round after round, and the others ask for a lens."""
    from dashboard.live import LiveModel
    from dashboard.turns import asking
    from saes.acts.prompt import ReadLayers, ReadPrompt

    live, seconds = LiveModel(workspace), []
    live.ask(ReadPrompt(text="warm", model=MODEL))

    def ask(user: int, number: int) -> None:
        with asking(f"user {user}"):
            started = time.perf_counter()
            live.ask(ReadPrompt(text=prompt(62, number), model=MODEL))
            seconds.append(time.perf_counter() - started)

    def click(user: int) -> None:
        with asking(f"user {user}"):
            live.ask(ReadLayers(text="warm", model=MODEL, start=0, stop=1))

    dense = dense_speed()
    for number in range(ROUNDS):
        threads = [threading.Thread(target=ask, args=(user, ASKING * number + user)) for user in range(ASKING)]
        threads += [threading.Thread(target=click, args=(user,)) for user in range(ASKING, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    slow = float(np.quantile(seconds, 0.95))
    return as_result("20 users, a tenth of whom prompt: 95th percentile of a reading", [slow], dense, USERS_LIMIT)


def as_result(question: str, seconds: list[float], dense: float, limit: float) -> Result:
    return at_most(
        question,
        median(seconds) / dense,
        limit / DENSE_SECONDS,
        "one dense product of 2048 x 2048 matrices",
        f"{median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f}; dense product {dense:.3f} s",
    )


def dense_speed() -> float:
    """Return the seconds of a dense product, median of five."""
    import torch

    a, taken = torch.randn(2048, 2048), []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, a)
        taken.append(time.perf_counter() - started)
    return median(taken)


def made_workspace(root: Path) -> Any:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fixtures"))
    from make_workspace import build

    return build(root, n_features=512, n_points=500)


if __name__ == "__main__":
    main(run)
