"""The prompt page without a browser: its answers as JSON, a fair queue, and the computations behind the views."""

import base64
import json
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from make_features import write_features
from make_tiny import SPEC
from page_text import text_of

from dashboard.app import create_app
from dashboard.prompt.page import layout
from dashboard.sources import PageSources
from dashboard.turns import Kind, Turns, asking
from interp.acts import decode
from interp.circuits.head_scores import HeadScores
from interp.errors import ConfigError, MismatchError, PromptError, ResourceError, SupersededError, UnknownNameError
from interp.workspace import Workspace
from saes.acts.attribution import AttributeAnswer
from saes.acts.features import ReadText
from saes.acts.patching import SuggestPair
from saes.acts.prompt import FeatureActivations, NextTokens, ReadLayers, ReadPrompt, ShowAttention, described
from saes.acts.run import Run, model_bytes
from saes.acts.writing import ContinuePrompt, Exchange, Say
from saes.features.schema import Features, labels, shares_below
from saes.weights.folder import load_sae

PROMPT = {"text": "one two three", "model": "m", "chat": False}
ASKED = PROMPT | {"visitor": "v"}
GIVEN = {"model": SPEC}
WITH_FEATURES = ASKED | {"features": "demo"}


def array_of(picture: dict[str, Any]) -> np.ndarray:
    """Return an array from its form in JSON."""
    return np.frombuffer(base64.b64decode(picture["base64"]), picture["dtype"]).reshape(picture["shape"])


def test_a_reading_has_everything_that_is_drawn_at_once(client, live):
    found = client.post("/api/act/read_prompt", json=WITH_FEATURES).get_json()
    assert found["tokens"][0] == "<|im_start|>"
    assert len(found["losses"]) == len(found["features"]) == len(found["tokens"])
    *heads, height, width = array_of(found["patterns"]).shape
    assert (heads, height) == ([found["n_layers"], found["n_heads"]], width)
    assert found["patterns"]["dtype"] == "uint8"
    fired = {str(feature) for at in found["features"] for feature, *_ in at}
    assert found["labels"]
    assert set(found["labels"]) <= fired
    assert all(0 <= below <= 1 for at in found["features"] for *_, below in at)
    assert len(found["random_active"]) == len(found["tokens"]) - 1
    assert live.calls == [("read", "one two three")]


def test_the_strongest_induction_head_is_shown_first_and_prompts_can_be_tried(workspace, live):
    scores = next(scores for scores in workspace.values(HeadScores) if "induction" in scores.kinds)
    page = layout(PageSources(workspace, live), model=scores.settings.model)
    chosen = next(part.data for part in page.children if getattr(part, "id", "") == "prompt-selection")
    best = max(scores.of_kind("induction"), key=lambda row: row.score)
    assert (chosen["layer"], chosen["head"]) == (best.layer, best.head)
    assert "/prompt?text=The+capital+of+France" in text_of(page)
    assert "Prompts to try" not in text_of(layout(PageSources(workspace, live), text="a prompt"))


def test_a_reading_has_the_labels_of_its_features_and_their_share_of_the_recorded_activations(workspace, live):
    reading = live.ask(ReadPrompt(**PROMPT, features="demo"))
    bare = [[active._replace(below=None) for active in at] for at in reading.features]
    found = described(Run(workspace), replace(reading, features=bare, labels={}), "demo")
    fired = [(active.feature, active.activation) for at in bare for active in at]
    below = shares_below(workspace.open(Features, "demo"), fired)
    assert [active.below for at in found.features for active in at] == below
    assert any(share is not None for share in below)
    assert [[active[:2] for active in at] for at in found.features] == [[active[:2] for active in at] for at in bare]
    numbers = {feature for feature, _ in fired}
    assert found.labels == labels(workspace, "demo", numbers)
    assert found.labels
    assert set(found.labels) <= numbers
    nothing = replace(reading, features=[], labels={})
    assert described(Run(workspace), nothing, "") is nothing


def test_a_pattern_comes_back_as_it_was(client, live):
    found = client.post("/api/act/attention", json=ASKED | {"layer": 2, "head": 1}).get_json()
    assert found["cells"]["dtype"] == "uint16"
    expected = live.ask(ShowAttention(**PROMPT, layer=2, head=1)).weights
    assert array_of(found["cells"]) / 65535 == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("what", "body", "status", "says"),
    [
        ("read_prompt", {"text": ""}, 400, "the prompt is empty"),
        ("read_prompt", {"text": 7}, 400, "read_prompt: text should be a valid string, found 7"),
        ("read_prompt", {"visitor": 7}, 400, "the request: visitor should be a valid string, found 7"),
        ("read_layers", {"start": "a", "stop": 2}, 400, "read_layers: start should be a valid integer, found 'a'"),
        ("attention", {"layer": True, "head": 0}, 400, "attention: layer should be a valid integer, found True"),
        ("attention", {"layer": -1, "head": 0}, 400, "attention: layer should be greater than or equal to 0, found -1"),
        ("attention", {"layer": 2}, 400, "attention: head is missing"),
        ("attention", {"layer": 2, "head": 1, "<b>": 1}, 400, "attention: <b> is not a field of it"),
        ("nothing", {}, 404, "unknown act"),
    ],
)
def test_a_wrong_request_is_one_sentence(client, what, body, status, says):
    answer = client.post(f"/api/act/{what}", json=ASKED | body)
    assert answer.status_code == status
    assert says in answer.get_json()["error"]
    assert client.post(f"/api/act/{what}", data="[1]", content_type="application/json").status_code == 400


def test_the_progress_of_a_page_is_asked_for_and_its_requests_are_dropped(client, live):
    assert client.post("/api/visitor/stage", json={"visitor": "v"}).get_json() == {"stage": "reading"}
    assert live.calls == []
    assert client.post("/api/visitor/cancel", json={"visitor": "v"}).get_json() == {}
    assert live.calls == [("cancel", "v")]
    assert client.post("/api/visitor/else", json={"visitor": "v"}).status_code == 405
    assert client.post("/api/visitor/stage", json={"visitor": "v" * 65}).status_code == 400


def test_a_continuation_is_one_line_per_token_and_then_what_the_unchanged_model_thinks(client):
    body = WITH_FEATURES | {"feature": 3, "strength": 1.0, "n_new": 4, "temperature": 0, "seed": 0}
    lines = [json.loads(line) for line in client.post("/api/act/continue_prompt", json=body).get_data().splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2, 3, 4]
    assert all(len(line["tokens"]) == 3 for line in lines[:-1])
    assert [len(row) for row in lines[-1]["unchanged"]] == [4, 4, 4]


def in_threads(turns: Turns, given: list[tuple[str, Kind]]) -> list[str]:
    """Take turns while the resource is held, in the order given; return the visitors in the order of service."""
    served: list[str] = []

    def take(visitor: str, kind: Kind) -> None:
        with asking(visitor):
            try:
                with turns.take(kind):
                    served.append(visitor)
            except SupersededError:
                served.append(f"{visitor} dropped")

    threads = []
    with turns.take(Say):
        for visitor, kind in given:
            thread = threading.Thread(target=take, args=(visitor, kind))
            thread.start()
            threads.append(thread)
            before = time.monotonic() + 5
            while turns.n_waiting + len(served) < len(threads) and time.monotonic() < before:
                time.sleep(0.002)
    for thread in threads:
        thread.join(10)
    return served


def test_an_address_with_a_text_offers_to_trace_it(workspace, live):
    shown = str(layout(PageSources(workspace, live), text="The capital of France is", model="smollm2-135m"))
    assert "/graph?trace=The+capital+of+France+is&model=smollm2-135m" in shown
    asked = layout(PageSources(workspace, live), text="One is", model="tiny", answer=" two", contrast=" three")
    assert "/graph?trace=One+is&model=tiny&target=+two&contrast=+three" in str(asked)


def test_one_page_with_many_requests_does_not_keep_another_waiting():
    kinds: list[Kind] = [ReadLayers, ShowAttention, NextTokens, AttributeAnswer]
    served = in_threads(Turns(), [*(("busy", kind) for kind in kinds), ("quiet", ReadLayers), ("other", ReadLayers)])
    assert served == ["busy", "quiet", "other", "busy", "busy", "busy"]


def test_what_is_seen_first_is_served_before_the_panels_below(monkeypatch):
    from dashboard import turns

    monkeypatch.setattr(turns, "PAUSE", 0.05)
    queue, served, threads = Turns(), [], []

    def take(kind: Kind) -> None:
        with asking("page"), queue.take(kind):
            served.append(kind)

    with queue.take(Say):
        for kind in (SuggestPair, ReadLayers, ShowAttention, AttributeAnswer):
            threads.append(threading.Thread(target=take, args=(kind,)))
            threads[-1].start()
            time.sleep(0.01)
        time.sleep(0.2)
    for thread in threads:
        thread.join(10)
    assert served == [ShowAttention, AttributeAnswer, SuggestPair, ReadLayers]


def test_a_new_prompt_drops_a_request_that_has_not_queued_yet(monkeypatch):
    from dashboard import turns

    monkeypatch.setattr(turns, "PAUSE", 0.2)
    queue, said = Turns(), []

    def late() -> None:
        try:
            with asking("page"), queue.take(ReadLayers):
                said.append("served")
        except SupersededError:
            said.append("dropped")

    thread = threading.Thread(target=late)
    thread.start()
    time.sleep(0.05)
    with asking("page"), queue.take(ReadPrompt):
        pass
    thread.join(10)
    assert said == ["dropped"]


def test_requests_without_a_page_share_the_place_of_their_browser_and_replace_nothing():
    from dashboard.turns import guest

    served: list[str] = []
    turns, threads = Turns(), []

    def take(browser: str, kind: Kind) -> None:
        guest(browser)
        with turns.take(kind):
            served.append(browser)

    with turns.take(Say):
        for browser, kind in [*[("busy", ReadText)] * 3, ("quiet", ReadText)]:
            threads.append(threading.Thread(target=take, args=(browser, kind)))
            threads[-1].start()
            end = time.monotonic() + 5
            while turns.n_waiting < len(threads) and time.monotonic() < end:
                time.sleep(0.002)
    for thread in threads:
        thread.join(10)
    assert served == ["busy", "quiet", "busy", "busy"], "one browser does not keep another waiting"


def test_every_browser_gets_a_place_of_its_own(workspace, live):
    from dashboard.app import BROWSER

    app = create_app(workspace, live=live)
    app.server.wsgi_app = app.server.wsgi_app.app  # past the guard
    seen, names = [], set()

    def slot() -> str:
        with Turns().take(ReadPrompt) as turn:
            seen.append(turn.slot)
        return ""

    app.server.add_url_rule("/guest", "guest", slot)
    for _ in range(2):
        browser = app.server.test_client()
        names.add(browser.get("/").headers["Set-Cookie"].split(";")[0])
        assert "Set-Cookie" not in browser.get("/").headers
        browser.get("/guest")
    assert {f"guest {name.removeprefix(f'{BROWSER}=')}" for name in names} == set(seen)
    assert len(names) == 2


def test_a_newer_request_replaces_an_older_one_of_its_kind_and_a_prompt_replaces_all():
    assert in_threads(Turns(), [("a", ReadLayers), ("a", ReadLayers)]) == ["a dropped", "a"]
    several: list[tuple[str, Kind]] = [("a", ReadLayers), ("a", ShowAttention), ("a", ReadPrompt)]
    assert sorted(in_threads(Turns(), several)) == ["a", *["a dropped"] * 2]
    assert in_threads(Turns(), [("a", ReadLayers), ("b", ReadLayers)]) == ["a", "b"]
    assert in_threads(Turns(), [("", ReadLayers), ("", ReadLayers)]) == ["", ""], "without a name they share nothing"


def test_no_request_waits_or_runs_longer_than_its_limit(monkeypatch):
    monkeypatch.setattr("dashboard.turns.REQUEST_SECONDS", 0.05)
    turns, refused = Turns(), []

    def ask() -> None:
        with pytest.raises(ResourceError, match="busy with other questions"), turns.take(ReadPrompt):
            pass
        refused.append(turns.n_waiting)

    with asking("a"), turns.take(ReadPrompt) as turn:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(10)
        with pytest.raises(ResourceError, match="quicker nulls"):
            turn.check()
    assert refused == [0]
    with turns.take(ReadPrompt) as other, pytest.raises(ResourceError), turns.take(ReadPrompt, again=turn):
        assert other is not turn


def test_a_running_request_stops_at_its_next_step_once_it_is_cancelled():
    turns = Turns()
    with asking("a"), turns.take(ReadPrompt) as turn:
        turn.check("running the model")
        assert turns.stage("a") == "running the model"
        assert turns.stage("b") == ""
        turns.cancel("a")
        with pytest.raises(SupersededError, match="replaced"):
            turn.check("computing the losses")
    with turns.take(ReadPrompt):
        pass  # the turn was given back


def test_the_lens_of_some_columns_is_that_of_the_whole_prompt(tiny, tiny_model):
    from interp.lenses.logit_lens import follow_token, logit_lens
    from interp.models.adapter import to_tokens

    tokens, text = to_tokens(tiny_model, "one two three"), "one two three"
    whole = logit_lens(tiny_model, tokens, top=5)
    found = tiny.ask(ReadLayers(text=text, **GIVEN, start=2, stop=6, token="t"))
    for layer, row in enumerate(found.cells):
        for i, cell in enumerate(row):
            assert [token for token, _ in cell] == list(whole.top_tokens[layer][2 + i])
            expected = whole.probabilities[layer, 2 + i].tolist()
            assert [p for _, p in cell] == pytest.approx(expected, abs=1e-5)
    trail = follow_token(tiny_model, tokens, int(to_tokens(tiny_model, "t", prepend_bos=False)[0, 0]))
    assert found.followed == "t"
    assert found.rank == trail.rank[:, 2:6].tolist()
    assert torch.tensor(found.probability) == pytest.approx(trail.probability[:, 2:6].numpy(), abs=1e-5)
    with pytest.raises(PromptError, match="positions 0 to"):
        tiny.ask(ReadLayers(text=text, **GIVEN, start=3, stop=99))


def test_losses_and_next_tokens_are_those_of_the_model(tiny, tiny_model):
    from interp.models.adapter import run_with_cache, to_tokens

    tokens = to_tokens(tiny_model, "one two three")
    log_p = run_with_cache(tiny_model, tokens, [])[0][0].float().log_softmax(-1)
    result = tiny.ask(ReadPrompt(text="one two three", **GIVEN))
    assert result.losses[1:] == pytest.approx((-log_p[:-1].gather(1, tokens[0, 1:, None])[:, 0]).tolist(), abs=1e-4)
    found = tiny.ask(NextTokens(text="one two three", **GIVEN, after=4))
    assert [p for _, p in found.guesses] == pytest.approx(log_p[4].exp().topk(10).values.tolist(), abs=1e-5)
    cold = tiny.ask(NextTokens(text="one two three", **GIVEN, after=4, temperature=0.1))
    assert cold.entropy < found.entropy <= found.uniform
    assert cold.guesses[0][1] > found.guesses[0][1]
    with pytest.raises(ConfigError, match=r"temperature should be greater than or equal to 0\.05, found 0"):
        decode(NextTokens, {"text": "one", **GIVEN, "after": 0, "temperature": 0})


def test_attribution_at_any_token_needs_no_pass_after_the_reading(tiny, tiny_model, monkeypatch):
    from interp.lenses.direct_attribution import direct_logit_attribution
    from interp.models.adapter import to_tokens

    tokens = to_tokens(tiny_model, "one two three")
    tiny.ask(ReadPrompt(text="one two three", **GIVEN))
    expected = [direct_logit_attribution(tiny_model, tokens[:, : at + 1], 116, 115) for at in (3, 8)]
    monkeypatch.setattr("interp.lenses.direct_attribution.run_with_cache", None)
    for at, whole in zip((3, 8), expected, strict=True):
        found = tiny.ask(AttributeAnswer(text="one two three", **GIVEN, answer="t", contrast="s", after=at))
        assert [value for _, value in found.parts] == pytest.approx(whole.values[:, 0].tolist(), abs=1e-5)
        assert found.total == pytest.approx(float(whole.total[0]), abs=1e-5)


def test_small_patterns_keep_the_strongest_attention(tiny):
    text = "a long text that has more than one hundred letters in it, " * 2
    result = tiny.ask(ReadPrompt(text=text, **GIVEN))
    assert result.patterns.shape[-1] == 24
    weights = tiny.ask(ShowAttention(text=text, **GIVEN, layer=1, head=0)).weights
    assert result.patterns[1, 0].max() == pytest.approx(255 * weights.max(), abs=1)
    assert tiny.ask(ReadPrompt(text="ab", **GIVEN)).patterns.shape[-1] == 3


def test_steering_by_nothing_changes_nothing_and_both_changes_have_one_length(tiny, tiny_model, tmp_path):
    from interp.models.generation import Offset
    from saes.acts.writing import steered_rows

    how = {"features": "tiny", "feature": 3, "n_new": 4, "temperature": 0.0, "seed": 0}
    steps = list(tiny.steps(ContinuePrompt(text="one two", **GIVEN, **how, strength=0.0)))
    assert all(len({text for text, _ in step.tokens}) == 1 for step in steps[:-1])
    assert np.ptp(np.array(steps[-1].unchanged), axis=0).max() == pytest.approx(0, abs=1e-6)
    sae = load_sae(Workspace(tmp_path).path("sae", "tiny"))
    hooks = steered_rows(tiny_model, sae, 3, 7.0, 0, Offset())
    value = changed = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1))
    for _, hook in hooks:
        after = hook(changed)
        changed = changed if after is None else after
    length = (changed - value).norm(dim=-1)
    assert {point for point, _ in hooks} == {"blocks.0.hook_resid_post"}
    assert length[0].tolist() == [0.0] * 5
    assert length[1, 1:] == pytest.approx(length[2, 1:].numpy(), rel=1e-5)
    assert length[:, 0].tolist() == [0.0] * 3  # BOS, which no dictionary is made from
    with pytest.raises(ConfigError, match="n_new should be less than or equal to 60, found 99"):
        decode(ContinuePrompt, {"text": "one", **GIVEN, **how, "n_new": 99, "strength": 1.0})


def test_two_words_are_exchanged_beside_a_change_of_the_same_size(tiny, tiny_model, tmp_path):
    from interp.artifacts import save_artefact
    from interp.lenses.jacobian_fit import fit_jacobian_lens
    from interp.lenses.jacobian_lens import JacobianLensConfig
    from interp.models.generation import Offset
    from saes.acts.writing import exchanged_rows

    how = {"n_new": 3, "temperature": 0.0, "seed": 0, "exchange": Exchange("a", "z", 0)}
    with pytest.raises(PromptError, match="--kind jacobian"):
        list(tiny.steps(ContinuePrompt(text="one two", **GIVEN, **how)))
    text = torch.randint(97, 123, (40, 12), generator=torch.Generator().manual_seed(0))
    config = JacobianLensConfig(rounds=2, skip=2, heldout_positions=16, products="float32")
    lens = fit_jacobian_lens(tiny_model, text[:30], text[30:], config)
    lens = save_artefact(lens, Workspace(tmp_path).path("jacobian_lens", "tiny"))
    lenses = tiny.ask(ReadPrompt(text="one two three", **GIVEN)).lenses
    assert {kind for kind, _ in lenses} == {"logit", "jacobian"}
    steps = list(tiny.steps(ContinuePrompt(text="one two", **GIVEN, **how)))
    assert [len(step.tokens) for step in steps] == [3, 3, 3, 0]
    value = changed = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(1)).expand(3, -1, -1)
    for _, hook in exchanged_rows(tiny_model, lens, Exchange("a", "z", 0), 0, Offset()):
        after = hook(changed)
        changed = changed if after is None else after
    length = (changed - value).norm(dim=-1)
    assert length[0].tolist() == [0.0] * 5
    assert length[1, 1:] == pytest.approx(length[2, 1:].numpy(), rel=1e-4)
    for exchange, told in ((Exchange("a", "a", 0), "itself"), (Exchange("a", "qqq", 0), "no single token"),
                           (Exchange("a", "z", 9), "no layer 9")):  # fmt: skip
        with pytest.raises(PromptError, match=told):
            list(tiny.steps(ContinuePrompt(text="one two", **GIVEN, **how | {"exchange": exchange})))


def test_a_model_without_a_chat_template_says_so(tiny):
    with pytest.raises(PromptError, match="no chat template"):
        tiny.ask(ReadPrompt(text="one two", **GIVEN, chat=True))


def test_activations_are_those_of_the_dictionary_and_an_unknown_feature_is_named(tiny):
    text = "one two three"
    result = tiny.ask(ReadPrompt(text=text, **GIVEN, features="tiny"))
    best = result.features[5][0]
    asked = {"text": text, **GIVEN, "features": "tiny"}
    activations = tiny.ask(FeatureActivations(**asked, feature=best.feature))
    assert activations[5] == pytest.approx(best.activation)
    with pytest.raises(UnknownNameError, match="unknown feature"):
        tiny.ask(FeatureActivations(**asked, feature=10**6))


STEPS = {"features": "tiny", "feature": 3, "strength": 1.0, "n_new": 20, "temperature": 0.0, "seed": 0}


@pytest.mark.parametrize("during", [True, False], ids=["within a step", "between steps"])
def test_a_cancelled_generation_stops(tiny, monkeypatch, during):
    from interp.models.generation import NextToken

    made, step = [], NextToken.__call__

    def counted(*args):
        made.append(step(*args))
        if during and len(made) == 2:
            tiny.cancel("a")
        return made[-1]

    monkeypatch.setattr(NextToken, "__call__", counted)
    with asking("a"):
        steps = tiny.steps(ContinuePrompt(text="one two", **GIVEN, **STEPS))
        next(steps)
        with pytest.raises(SupersededError):  # noqa: PT012
            next(steps)
            tiny.cancel("a")
            next(steps)
    assert len(made) == 2


def test_a_newer_generation_of_a_page_outlasts_the_older_one(tiny):
    with asking("a"):
        older, newer = (tiny.steps(ContinuePrompt(text="one two", **GIVEN, **STEPS)) for _ in range(2))
        next(older)
        next(newer)
        with pytest.raises(SupersededError):
            next(older)
        assert next(newer).number == 1
        tiny.ask(ReadPrompt(text="one", **GIVEN))
        with pytest.raises(SupersededError):
            next(newer)


def test_a_continuation_beyond_the_context_is_refused(tiny, tiny_model):
    n = tiny_model.cfg.n_ctx
    with pytest.raises(PromptError, match=f"with 20 new ones exceed the model's context of {n}"):
        next(tiny.steps(ContinuePrompt(text="a" * (n - 10), **GIVEN, **STEPS)))


def describe(workspace, made_from: str, text: str = ""):
    """Replace the features `tiny`, with the hash of the SAE that they were made from."""
    rows = [{"feature": i} for i in range(80)]
    more = {"beside": lambda path: (path / "examples.txt").write_text(text)}
    write_features(workspace, "tiny", rows, dictionary="sae:tiny", parents={"saes/tiny": made_from}, **more)


def test_features_of_an_sae_that_was_made_again_are_refused(tiny, tmp_path):
    workspace = Workspace(tmp_path)
    describe(workspace, workspace.manifest("sae", "tiny").content_hash)
    assert tiny.ask(ReadPrompt(text="one two", **GIVEN, features="tiny")).features
    with pytest.raises(UnknownNameError, match="last one is 79"):
        tiny.ask(FeatureActivations(text="one two", **GIVEN, features="tiny", feature=80))
    describe(workspace, "0" * 64)
    with pytest.raises(MismatchError, match="workbench features tiny --overwrite"):
        tiny.ask(ReadPrompt(text="one two three", **GIVEN, features="tiny"))


def test_a_prompt_is_read_again_once_its_features_were_described_again(tiny, tmp_path):
    workspace = Workspace(tmp_path)
    sae = workspace.manifest("sae", "tiny").content_hash
    reading = ReadPrompt(text="one two", **GIVEN, features="tiny")
    before = tiny.ask(reading).patterns
    assert tiny.ask(reading).patterns is before
    describe(workspace, sae, "other examples")
    assert tiny.ask(reading).patterns is not before


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """The streams of which a run computed the lists of words, instead of computing them."""
    streams: list[str] = []

    def read_lists(site, done):
        streams.append(site.stream)
        return f"lists of {site.stream}"

    monkeypatch.setattr("saes.features.measure_proof.read_lists", read_lists)
    return streams


def lists_of(run: Run, spec: str, stream: str) -> str:
    return run.lists(spec, SimpleNamespace(stream=stream))


def test_models_used_longest_ago_are_dropped_above_the_limit(monkeypatch, computed):
    def load(spec: str, **_) -> torch.nn.Linear:
        loads.append(spec)
        model = torch.nn.Linear(10, 10, bias=False)
        model.again = model.weight  # shared weights count once
        return model

    loads: list[str] = []
    monkeypatch.setattr("saes.acts.run.models", lambda workspace: list("abc"))
    monkeypatch.setattr("interp.models.loading.load_model", load)
    monkeypatch.setattr("interp.models.adapter.weight_hash", lambda model: "hash")
    assert model_bytes(load("x")) == 400
    loads.clear()
    run = Run(None, memory=800)
    for spec in "abab":
        run.model(spec)
    assert (loads, run.models) == (["a", "b"], ["a", "b"]), "two models fit"
    for spec in "ab":
        lists_of(run, spec, f"of {spec}")
    run.model("a")
    run.model("c")
    assert run.models == ["a", "c"], "b was used longest ago"
    for spec in "ab":
        lists_of(run, spec, f"of {spec}")
    assert computed == ["of a", "of b", "of b"], "what belongs to a dropped model goes with it"
    small = Run(None, memory=10)
    assert small.model("a") is small.model("a"), "the model in use stays, whatever it takes"
    small.model("b")
    assert small.models == ["b"]


def test_few_dictionaries_are_held_those_used_last(computed):
    run = Run(None)
    for stream in "abcdaef":
        assert lists_of(run, "m", stream) == f"lists of {stream}"
    assert "".join(computed) == "abcdef"
    for stream in "daef":
        lists_of(run, "m", stream)
    assert "".join(computed) == "abcdef", "they are in memory"
    lists_of(run, "m", "c")
    assert computed[-1] == "c", "but not the one before them"
