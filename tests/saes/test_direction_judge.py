"""An endpoint that writes the examples of a trait, and judges what a steered model writes."""

import re

import pytest
from fake_endpoint import FakeEndpoint

from interp.directions.choice import SampleJudgement
from interp.directions.study import DirectionGeometry
from interp.errors import ConfigError
from interp.workspace import Workspace
from saes.explain.asking import answers_of, check_answers, written_by, yes_or_no
from saes.explain.providers import ENDPOINT, ENDPOINT_MODEL, open_provider
from workbench.__main__ import main

QUICK = ["--layers", "1", "--strengths", "1", "--n-random", "2", "--n-judging", "3", "--harmless", "99",
         "--lists", "weekdays"]  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "answer"),
    [("yes", True), ("No.", False), ("**Yes**, it does", True), ("I know nothing", None), ("", None), ("NO", False)],
)
def test_the_first_yes_or_no_is_the_answer(reply, answer):
    assert yes_or_no(reply) is answer


def test_a_judge_gets_one_request_a_sample_and_not_how_it_was_written():
    with FakeEndpoint(lambda prompt, _: "yes" if "lovely" in prompt else "no") as fake:
        judge = answers_of(open_provider(fake.url, "m"), "Does it praise?")
        assert judge([("The film was", " lovely"), ("The film was", " long"), ("The film was", " lovely")]) == [
            True, False, True,
        ]  # fmt: skip
    assert len(fake.prompts) == 2  # the same text is asked about once
    assert all("steer" not in each and "Does it praise?" in each for each in fake.prompts)


def test_a_writer_goes_on_from_the_opening():
    with FakeEndpoint(lambda prompt, _: f'"My house is {re.findall("very ([a-z]+)", prompt)[0]}."\nmore') as fake:
        written = written_by(open_provider(fake.url, "m"))("gloomy", ["My house is", "To be honest, I"])
    assert written == [" gloomy", " My house is gloomy"]


def test_a_provider_that_cannot_say_yes_is_refused_before_long_work():
    with FakeEndpoint(lambda *_: "perhaps") as fake, pytest.raises(ConfigError, match="neither yes nor no"):
        check_answers(open_provider(fake.url, "m"))


def test_the_command_asks_the_chosen_endpoint(tmp_path, monkeypatch, capsys):
    """Trait, choice, judgement: from the command line to the artefact."""

    def answer(prompt: str, number: int) -> str:
        if "Answer with one word" in prompt:
            return "yes" if number % 2 else "no"
        return f"aaa {len(prompt)}" if "very kind" in prompt else f"zzz {len(prompt)}"

    words = ["direction", "small:attn-only-2l", "--trait", "kind", "--instead", "rude", "--writer", "endpoint",
             "--judge", "Is it kind?", "--name", "kind",
             "--workspace", str(tmp_path), *QUICK]  # fmt: skip
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert main(words) == 2
    assert f"set ${ENDPOINT}" in capsys.readouterr().err
    with FakeEndpoint(answer) as fake:
        monkeypatch.setenv(ENDPOINT, fake.url)
        monkeypatch.setenv(ENDPOINT_MODEL, "my-model")
        assert main(words) == 0
    found = Workspace(tmp_path).open(DirectionGeometry, "kind")
    assert "another model writes" in found.settings.direction.source
    assert isinstance(found.choice.judged.judgement, SampleJudgement)
    assert found.choice.judged.judgement.by == "my-model"
    assert main(["direction", "small:attn-only-2l", "--towards", "a", "b", "c", "d", "--away", "e", "f", "g", "h",
                 "--writer", "endpoint", "--workspace", str(tmp_path)]) == 2  # fmt: skip
    assert "only the examples of a trait are written" in capsys.readouterr().err
