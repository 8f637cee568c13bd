"""An endpoint that writes the examples of a trait."""

import re

from fake_endpoint import FakeEndpoint

from interp.directions.study import DirectionGeometry
from interp.workspace import Workspace
from saes.explain.endpoint import ENDPOINT, ENDPOINT_MODEL, Endpoint
from workbench.__main__ import main
from workbench.verbs.direction import written_by

QUICK = ["--layers", "1", "--strengths", "1", "--n-random", "2", "--n-judging", "3", "--harmless", "99",
         "--lists", "weekdays"]  # fmt: skip


def test_a_writer_goes_on_from_the_opening():
    with FakeEndpoint(lambda prompt, _: f'"My house is {re.findall("very ([a-z]+)", prompt)[0]}."\nmore') as fake:
        written = written_by(Endpoint(fake.url, "m"))("gloomy", ["My house is", "To be honest, I"])
    assert written == [" gloomy", " My house is gloomy"]


def test_the_command_asks_the_chosen_endpoint(tmp_path, monkeypatch, capsys):
    """From the trait on the command line to the artefact."""
    words = ["direction", "small:attn-only-2l", "--trait", "kind", "--instead", "rude", "--writer", "endpoint",
             "--name", "kind", "--workspace", str(tmp_path), *QUICK]  # fmt: skip
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert main(words) == 2
    assert f"set ${ENDPOINT}" in capsys.readouterr().err
    with FakeEndpoint(lambda prompt, _: f"{'aaa' if 'very kind' in prompt else 'zzz'} {len(prompt)}") as fake:
        monkeypatch.setenv(ENDPOINT, fake.url)
        monkeypatch.setenv(ENDPOINT_MODEL, "my-model")
        assert main(words) == 0
    found = Workspace(tmp_path).open(DirectionGeometry, "kind")
    assert "another model writes" in found.settings.direction.source
    assert main(["direction", "small:attn-only-2l", "--towards", "a", "b", "c", "d", "--away", "e", "f", "g", "h",
                 "--writer", "endpoint", "--workspace", str(tmp_path)]) == 2  # fmt: skip
    assert "only the examples of a trait are written" in capsys.readouterr().err
