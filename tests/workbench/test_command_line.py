"""The command line: teaches, lists, fails in one line, and says what it would take to type the demo by hand."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from interp.artifacts import FOLDERS, Draft
from interp.departed import DEPARTED
from interp.errors import as_typed, program
from interp.workspace import Workspace
from workbench.__main__ import ASK, FAMILIES, SPINS, VERBS, main, overview, parse
from workbench.ask import acts
from workbench.demo import Demo
from workbench.options import command_line, help_of, options_of
from workbench.terminal import slug
from workbench.verbs.atlas import Atlas
from workbench.verbs.heads import Heads
from workbench.verbs.record import Record


def make_heads(workspace: Workspace, name: str = "toy") -> None:
    draft = Draft.open(workspace.path("heads", name), kind="heads", config={"model": "toy"}, seed=0)
    (draft.path / "heads.parquet").write_bytes(b"not read here")
    draft.finish()


def test_help_names_every_verb_and_loads_no_torch():
    code = (
        "import sys; from workbench.__main__ import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False).stdout
    *lines, torch = out.rstrip().splitlines()
    assert torch == "False"
    assert max(map(len, lines)) <= 100
    for name in VERBS:
        assert all(re.search(rf"\b{word}\b", out) for word in name.split()), name


def test_no_verb_prints_the_help_and_exits_with_two(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert capsys.readouterr().out == overview() + "\n"


def test_threads_of_torch_sleep_soon_while_they_wait_unless_the_user_says_otherwise(monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert main(["heads", "--bad-option"]) == 2
    assert os.environ["GOMP_SPINCOUNT"] == SPINS
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert main(["heads", "--bad-option"]) == 2
    assert "GOMP_SPINCOUNT" not in os.environ


def test_version_is_that_of_the_installed_package(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == metadata.version("interp-workbench") + "\n"


@pytest.mark.parametrize(("resumes", "promise"), [(False, "starts again"), (True, "continues")])
def test_a_stopped_verb_exits_with_130_and_says_whether_it_resumes(resumes, promise, capsys, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Heads, "run", stop)
    monkeypatch.setattr(Heads, "resumes", resumes)
    assert main(["heads", "toy:induction-2l"]) == 130
    assert f"the same command {promise}" in capsys.readouterr().err


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: {program()} {name} " in " ".join(out.split())
    assert "Example:" not in out or f"Example: {program()} " in out
    for option in options_of(VERBS[name]):
        assert all(flag in out for flag in option.flags), option


@pytest.mark.parametrize("columns", ["80", "100", "300"])
def test_help_names_values_in_plain_words_and_fits_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    for name in VERBS:
        with pytest.raises(SystemExit):
            main([*name.split(), "--help"])
        out = capsys.readouterr().out
        for noise in (r"\{None", "None(?!: train for all)", "default: ", r"\{True", "STR", r"\bINT\b", r"\(required\)"):
            assert not re.search(noise, out), (name, noise)
        assert max(map(len, out.splitlines())) <= min(100, int(columns)), name
        assert all(line == line.rstrip() for line in out.splitlines()), name


def test_help_gives_own_options_first_and_every_option_a_meaning():
    for name, verb in VERBS.items():
        options = options_of(verb)
        shared = [option.shared for option in options]
        assert shared == sorted(shared), name
        assert len({option.name for option in options}) == len(options)
        for option in options:
            assert re.fullmatch(r"[^ .].*\.", option.help), (name, option)
            assert option.metavar == "" or option.metavar[0] in "{[" or option.metavar.split()[0].isupper(), option


def test_an_example_stays_on_its_own_lines_and_can_be_copied(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for verb in VERBS.values():
        for title in re.findall(r"^(.+: )workbench ", inspect.getdoc(verb) or "", re.M):
            shown = help_of(verb)
            start = shown.index(f"\n{title}{program()}") + 1
            text = shown[start:].split("\n\n")[0].removeprefix(title)
            commands = text.replace("\\\n", "").splitlines()
            for command in commands:
                words = shlex.split(command)
                assert words[0] == program(), command
                assert type(parse(words[1:])) in VERBS.values()


def test_the_help_names_defaults_as_their_option_takes_them():
    texts = {option.name: option.help for option in options_of(VERBS["dynamics grok"])}
    assert texts["seeds"].endswith("Default: 0 1 2.")
    assert texts["eps"].endswith("Default: 1e-05.")
    texts = {option.name: option.help for option in options_of(VERBS["record"])}
    assert texts["live"].endswith("Default: no.")
    assert texts["threads"] == "CPU threads. Default: all cores."


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ([], None),
        (["--by-position"], True),
        (["--no-by-position"], False),
        (["--no_by_position"], False),
    ],
)
def test_a_switch_may_be_left_open(typed, expected):
    for arguments in (["m", "--task", "ioi", *typed], [*typed, "--task", "ioi", "m"], [*typed, "m", "--task", "ioi"]):
        verb = parse(["patch", *arguments])
        assert (verb.by_position, verb.model) == (expected, "m")


@pytest.mark.parametrize(
    ("typed", "name", "expected"),
    [
        (["--tokens", "2e4"], "tokens", 20_000),
        (["--seed", "2305843009213693953"], "seed", 2**61 + 1),
        (["--hook_points", "a", "b"], "hook_points", ("a", "b")),
        (["--hook-point", "a"], "hook_points", ("a",)),
        (["--corpus=--my_text.txt"], "corpus", "--my_text.txt"),
        (["--corpus", "my text.txt"], "corpus", "my text.txt"),
    ],
)
def test_a_value_is_read_as_it_is_typed(typed, name, expected):
    for arguments in (["m", *typed], [*typed, "--live", "m"], [*typed, "--", "m"]):
        verb = parse(["record", *arguments])
        assert (getattr(verb, name), vars(verb)["model"]) == (expected, "m")


def test_a_negative_number_in_powers_of_ten_is_a_value():
    assert parse(["train", "m", "--l1-coefficient", "-1e-3"]).l1_coefficient == (-1e-3,)


def test_an_optional_value_takes_the_word_none():
    assert parse(["dynamics", "grok", "--settle", "None"]).settle is None
    assert parse(["dynamics", "grok", "--settle", "3"]).settle == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["record", "m", "--threads", "q"], "--threads takes a whole number, got 'q'"),
        (["record", "m", "--tokens", "1.5"], "--tokens takes a whole number, got '1.5'"),
        (["train", "m", "--lr", "much"], "--lr takes a finite number, got 'much'"),
        (["train", "m", "--share", "q"], "known: 'latents', 'tokens'"),
        (["record", "m", "--tokens"], "--tokens: expected one argument"),
        (["record", "m", "--live=False"], "'False'; `"),
        (["record", "m", "other"], "does not take 'other'"),
        (["record"], "record needs MODEL"),
        (["prove", "demo"], "prove needs --feature"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(arguments, expected, capsys):
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.startswith("workbench: ")
    assert message.count("\n") == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_lists_its_verbs(family, capsys):
    for arguments, code in (([family, "--help"], 0), ([family], 2)):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == code
        out = capsys.readouterr().out
        for name in VERBS:
            assert name.split()[0] != family or name.split()[1] in out
        assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["recrod"], "did you mean 'record'"),
        (["circuit", "fnid", "x"], "did you mean 'find'"),
        (["heads", "--n-promts", "3", "x"], "did you mean '--n-prompts'"),
        (["--workspace", "x", "heads"], "options follow the verb"),
        (["heads", "x", "--n-promts", "3"], "did you mean '--n-prompts'"),
        (["heads", "x", "--n-promts=3"], "did you mean '--n-prompts'"),
        (["heads", "--model", "x"], "workbench heads MODEL"),
    ],
)
def test_an_unknown_verb_or_option_lists_the_nearest(arguments, expected, capsys):
    assert main(arguments) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["heads", "smolm2-135m"], "did you mean 'smollm2-135m'"),
        (["record", "smollm2-135m", "--corpus", "docstring"], "docstrings"),
        (["lens", "smollm2-135m", "--corpus", "docstring"], "docstrings"),
        (["compare", "models", "smollm2-135m", "small:mlp-2l", "--corpus", "docstring"], "docstrings"),
        (["features", "nothing-here"], "unknown sae 'nothing-here'"),
        (["train", "nothing-here"], "unknown recording 'nothing-here'"),
        (["train", "x", "--k", "0"], "k must lie between 1"),
        (["train", "x", "--lr", "-1"], "lr must be between 0 and 1"),
        (["atlas", "nowhere:x"], "unknown atlas source"),
        (["atlas", "file:/no/such.npy"], "no file at /no/such.npy"),
        (["heads", "smollm2-135m", "--name", "../../etc"], "not a usable name"),
        (["verify", "nothing-here"], "unknown artefact 'nothing-here'"),
        (["serve", "/no/such/folder"], "no workspace at /no/such/folder"),
        (["import", "/nowhere/at/all", "--model", "smollm2-135m"], "/nowhere/at/all"),
        (["attribute", "x", "--prompt", "y", "--top", "0"], "top must be at least 1"),
        (["steer", "x", "--feature", "1", "--prompt", "y", "--amount", "nan"], "finite"),
        (["evaluate", "x", "--contexts", "-1"], "contexts must be at least 0"),
        (["compare", "saes", "x", "--contexts", "-1"], "contexts must be at least 0"),
        (["dynamics", "induction", "--steps", "0"], "at least 1"),
        (["attribute", "x", "--prompt", "y", "--workspace", "/no/such/folder"], "no workspace at /no/such/folder"),
        (["heads", "small:mlp-2l", "--workspace", "/dev/null/x"], "cannot make a workspace at /dev/null/x"),
        (["heads", "small:mlp-2l", "--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_two(arguments, expected, tmp_path, capsys):
    if arguments[0] != "serve" and "--workspace" not in arguments:
        arguments = [*arguments, "--workspace", str(tmp_path)]
    assert main(arguments) == 2
    message = capsys.readouterr().err.strip()
    assert expected in message
    assert "Traceback" not in message
    assert len([line for line in message.splitlines() if line.startswith("workbench:")]) == 1


def test_a_process_leaves_with_the_exit_code_and_the_line_of_a_mistake(tmp_path):
    command = [sys.executable, "-m", "workbench", "heads", "smolm2-135m", "--workspace", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"workbench: .*did you mean 'smollm2-135m'.*\n", done.stderr), done.stderr


def test_verify_names_the_damaged_file_and_exits_with_one(tmp_path, capsys):
    workspace = Workspace(tmp_path, create=True)
    make_heads(workspace)
    assert main(["verify", "--workspace", str(tmp_path)]) == 0
    path = workspace.path("heads", "toy") / "heads.parquet"
    path.write_bytes(b"not read hers")
    capsys.readouterr()
    assert main(["verify", "toy", "--workspace", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "heads.parquet" in out
    assert "checksum" in out


def test_verify_reports_an_artefact_of_a_newer_schema(tmp_path, capsys):
    workspace = Workspace(tmp_path, create=True)
    make_heads(workspace)
    path = workspace.path("heads", "toy") / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    assert main(["verify", "--workspace", str(tmp_path)]) == 1
    assert "upgrade the workbench" in capsys.readouterr().out


def test_command_line_leaves_defaults_out_and_quotes_what_needs_it(monkeypatch):
    monkeypatch.setattr("workbench.options.program", lambda: "workbench")
    assert command_line(Atlas(source="sae:demo", name="map")) == "workbench atlas sae:demo --name map"
    assert command_line(Heads(model="gpt2", n_prompts=4)) == "workbench heads gpt2 --n-prompts 4"
    record = Record(model="gpt2", hook_points=("a", "b"), corpus="my text.txt")
    assert command_line(record) == "workbench record gpt2 --hook-points a b --corpus 'my text.txt'"


def test_the_demo_says_commands_that_parse_to_the_same_verbs():
    for step in [step for quick in (False, True) for step in Demo(quick=quick).steps()]:
        assert parse(shlex.split(command_line(step.verb))[1:]) == step.verb


def test_slug_is_always_a_usable_name(tmp_path):
    workspace = Workspace(tmp_path)
    for text in ("HuggingFaceTB/SmolLM2-135M", "../..", "neurons:blocks.9.mlp.hook_post", "é" * 100, "a" * 200):
        assert workspace.path("heads", slug(text)).parent == tmp_path / "heads"


def test_every_command_that_pages_print_is_a_verb():
    from dashboard.components.pages import find_pages
    from dashboard.overview.page import STEPS

    commands = [page.command for page in find_pages() if page.command] + [f"workbench {step}" for step in STEPS]
    assert len(commands) > len(STEPS)
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "workbench"
        assert parse(words).typed_words() == tuple(words[: len(parse(words).typed_words())])


def test_every_command_in_a_message_or_a_page_of_the_documentation_is_a_verb():
    root = Path(__file__).parents[2]
    files = [
        f for folder in ("interp", "saes", "dashboard", "workbench", "tools") for f in (root / folder).rglob("*.py")
    ]
    files += [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")]
    found = [(f, w) for f in files for w in re.findall(r"`workbench ((?:[a-z]+ ?)+)", f.read_text(encoding="utf-8"))]
    assert len(found) > 30
    for file, words in found:
        first, *more = words.split()
        known = first in VERBS or (first in FAMILIES and (not more or f"{first} {more[0]}" in VERBS))
        known |= first == ASK and (not more or any(act.startswith(more[0]) for act in acts()))
        assert known or file.name == "log.md", f"{file}: workbench {words}"


def test_every_command_of_the_documentation_and_of_the_examples_parses():
    root = Path(__file__).parents[2]
    pages = [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")]
    pages += [*(root / "docs" / "howto").glob("*.md"), *(root / "docs" / "explanation").glob("*.md")]
    pages.remove(root / "docs" / "howto" / "own-kind.md")  # tests/saes/test_own_kind.py runs its commands
    lines = [line for page in pages for line in re.findall(r"^(?:\$ )?workbench (.+)$", page.read_text("utf-8"), re.M)]
    for verb in VERBS.values():
        for block in re.findall(r"Example: (workbench .*?)\n\n", inspect.getdoc(verb) + "\n\n", re.S):
            lines += [line.strip(" ;\n") for line in block.split("workbench ") if line]
    assert len(lines) > 30
    for line in lines:
        words = shlex.split(line, comments=True)
        if "--help" not in words:
            assert parse(words).typed_words()[0] == words[0], line


@pytest.mark.parametrize("where", ["on the path", "below the working directory", "elsewhere"])
def test_the_next_move_works_as_typed(where, tmp_path, monkeypatch):
    script = tmp_path / "env" / "bin" / "workbench"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\necho workbench $1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin" if where == "on the path" else "/usr/bin:/bin")
    monkeypatch.chdir("/usr" if where == "elsewhere" else tmp_path)
    typed = as_typed("nothing here; `workbench demo` makes it")
    command = re.findall("`(.*)`", typed)[0]
    expected = {"on the path": "workbench demo", "below the working directory": "env/bin/workbench demo"}
    assert command == expected.get(where, f"{script} demo")
    assert subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout == "workbench demo\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["align", "m"], ["circuit", "core", "c"], ["label", "f"], ["referee", "write", "d"], ["ask", "patchscope"],
        ["train", "r", "--tracker", "wandb"], ["train", "r", "--kind", "matching_pursuit"],
        ["circuit", "find", "m", "--method", "relp"],
    ],
)  # fmt: skip
def test_a_command_that_is_gone_names_what_serves_instead(arguments, capsys):
    assert main(arguments) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "not of this version" in line]
    assert line.startswith("workbench: ")


def test_nothing_that_is_there_counts_as_gone():
    assert not DEPARTED["verb"].keys() & {*VERBS, *(name.split()[0] for name in VERBS)} - {"features", "neurons"}
    assert not DEPARTED["folder"].keys() & {*FOLDERS.values()}
    options = {flag for verb in VERBS.values() for option in options_of(verb) for flag in option.flags}
    assert not DEPARTED["option"].keys() & options
