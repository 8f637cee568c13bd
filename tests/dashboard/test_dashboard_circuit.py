"""The circuit page without a browser: which edges, which groups, where they are drawn, what is said of them."""

import re
import shutil
from dataclasses import replace

import pytest
from fake_live import FakeLive
from make_circuits import discovered, edge, edge_circuit, induction_circuit
from make_workspace import HOSTILE
from page_text import text_of

from dashboard.app import create_app
from dashboard.circuit import _data as view
from dashboard.circuit import page
from dashboard.circuit._drawing import CircuitView, part
from dashboard.circuit.page import details, summary
from dashboard.components.evidence import evidence_table, number
from dashboard.figures.theme import DARK, LIGHT
from dashboard.sources import PageSources
from interp.artifacts import ARRAYS, FOLDERS, MANIFEST, as_json, kinds_of, read_json, save_artefact, write_json
from interp.circuits.circuit import Circuit, Edge
from interp.circuits.found_circuit import Verdict, open_circuit
from interp.errors import CorruptError
from interp.names import parse_node
from interp.workspace import Workspace

HERE = {"Host": "127.0.0.1:8050"}

# --- which edges ---


def test_strongest_edges_come_first_and_as_many_as_asked(ioi):
    _, scored = ioi
    sizes = [row.size for row in scored.strongest(50)]
    assert len(sizes) == 50
    assert sizes == sorted(sizes, reverse=True)


def test_without_a_number_the_circuit_is_shown_as_it_was_found(ioi):
    found, scored = ioi
    assert {row.id for row in scored.strongest(None)} == {view.edge_id(*edge.key) for edge in found.circuit.edges}


def test_a_circuit_without_a_scored_graph_is_thinned_by_its_own_scores(workspace):
    found = open_circuit(workspace, "induction")
    scored = view.scored(found)
    assert scored.total == len(scored.strongest(None)) == len(found.circuit.edges) == 4
    assert [row.score for row in scored.strongest(2)] == [0.81, 0.55]


def said_of(workspace: Workspace, n: int | None) -> str:
    """The words on the page for how many of the edges of the circuit *wide* are drawn."""
    return part(open_circuit(workspace, "wide"), CircuitView(n))["said"]


def test_a_graph_of_thousands_is_cut_and_counted(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    scored = view.scored(discovered(workspace, "wide", "smollm2-135m", 12, 8, ["a", "b"]))
    assert scored.total > 5000
    assert scored.limit == view.MAX_EDGES == len(scored.strongest(10**6))
    assert f"at most {view.MAX_EDGES:,} are drawn" in said_of(workspace, 10**6)


@pytest.mark.parametrize("scored_graph", [True, False])
def test_a_circuit_of_thousands_is_cut_as_it_was_found_too(tmp_path, scored_graph):
    workspace = Workspace(tmp_path, create=True)
    found = discovered(workspace, "wide", "smollm2-135m", 12, 8, ["a", "b"], n_kept=3000)
    if not scored_graph:
        found = save_artefact(replace(found, edge_scores=None), found.folder, overwrite=True)
    scored = view.scored(found)
    drawn = scored.strongest(None)
    assert len(drawn) == scored.limit == view.MAX_EDGES < scored.n_in_circuit == 3000
    assert [row.id for row in drawn] == [row.id for row in scored.strongest(view.MAX_EDGES)]
    assert f"at most {view.MAX_EDGES:,} are drawn" in said_of(workspace, None)
    exported = view.as_shown(found, scored.strongest(None, limit=None), whole=True)
    assert {e.key for e in exported.edges} == {e.key for e in found.circuit.edges}, "an export is whole"


def test_a_weak_edge_of_the_circuit_is_shown_though_thousands_are_stronger(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    weak = Edge("L0H0", "L9MLP", score=1e-12)
    found = discovered(workspace, "wide", "smollm2-135m", 12, 8, ["a", "b"], more=[weak])
    scored = view.scored(open_circuit(workspace, found.key))
    assert "L0H0--L9MLP" in {row.id for row in scored.strongest(None)}


def reach(rows: list[view.EdgeRow], start: str, forwards: bool) -> set[str]:
    seen, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        for row in rows:
            a, b = row.ends if forwards else row.ends[::-1]
            if a == here and b not in seen:
                seen.add(b)
                waiting.append(b)
    return seen


@pytest.mark.parametrize("n", [5, 40, 200])
def test_only_paths_keeps_exactly_the_edges_between_embedding_and_logits(ioi, n):
    rows = ioi[1].strongest(n)
    alive = reach(rows, "embed", True) & reach(rows, "logits", False)
    expected = {row.id for row in rows if row.source in alive and row.target in alive}
    assert {row.id for row in ioi[1].strongest(n, paths=True)} == expected


@pytest.mark.parametrize("file", [ARRAYS, "prompts.json", "circuit.json", "edge_scores.parquet"])
def test_a_damaged_file_is_named(tmp_path, file):
    workspace = Workspace(tmp_path, create=True)
    found = discovered(workspace, "ioi", "smollm2-135m", 6, 4, ["a", "b"])
    (found.folder / file).write_bytes(b"cut")

    def read_all():
        damaged = open_circuit(workspace, "ioi")
        view.scored(damaged)
        view.tokens(damaged)
        damaged.pattern("L4H1")

    with pytest.raises(CorruptError, match=file.replace(".", r"\.")):
        read_all()


def test_export_reads_back_as_the_circuit_that_was_shown(ioi, tmp_path):
    found, scored = ioi
    exports = {
        "whole": view.export(found, scored.strongest(None), {"n": None}, whole=True),
        "part": view.export(found, scored.strongest(7), {"n": 7}, whole=False),
    }
    for name, each in exports.items():
        write_json(tmp_path / f"{name}.json", each)
    whole, part = (Circuit.load(tmp_path / f"{name}.json") for name in exports)
    assert {e.key for e in whole.edges} == {e.key for e in found.circuit.edges}
    assert exports["whole"]["about"]["verdict"] == as_json(found.verdict)
    assert exports["whole"]["about"]["evaluation"]["measures"] == dict(found.measures())
    assert len(part.edges) == 7
    about = exports["part"]["about"]
    assert about["verdict"] is about["evaluation"] is None, "they judged another set of edges"
    assert (about["shown"], about["settings"]["model"]) == ({"n": 7}, found.settings.model)
    part.check_model(found.settings.weight_hash)


# --- groups ---


def test_proposal_by_role_finds_the_induction_heads(workspace):
    found = open_circuit(workspace, "induction")
    groups = view.propose("role", found.circuit, view.scored(found).rows)
    assert groups == {"induction": ["L4H1", "L5H3"]}


def test_proposal_by_readers_joins_senders_that_are_read_alike():
    rows = [edge(s, t, "k") for s in ("L0H0", "L0H1") for t in ("L2H0", "L2H1", "L3H0")] + [edge("L1H0", "L3H3", "q")]
    groups = view.propose("readers", Circuit("m", "h"), rows)
    assert groups == {"read by L2H0 and 2 more": ["L0H0", "L0H1"]}


def test_bands_hold_neighbouring_layers_and_leave_the_ends_out(ioi):
    found, scored = ioi
    groups = view.propose("band", found.circuit, scored.strongest(100))
    layers = [{parse_node(member).layer for member in members} for members in groups.values()]
    assert layers == [{0, 1}, {2, 3}, {4, 5}]


def test_groups_of_one_name_are_both_proposed():
    rows = [edge(s, t, "k") for s in ("L0H0", "L0H1") for t in ("L3H0", "L3H1")]
    rows += [edge(s, t, "k") for s in ("L1H0", "L1H1") for t in ("L3H0", "L3H2", "L3H3", "L4H0", "L4H1")]
    rows += [edge(s, t, "q") for s in ("L2H0", "L2H1") for t in ("L3H0", "L3H1")]
    groups = view.propose("readers", Circuit("m", "h"), rows)
    assert [*groups.values()] == [["L0H0", "L0H1"], ["L1H0", "L1H1"], ["L2H0", "L2H1"]]


def test_groups_of_a_visitor_are_stored_with_the_notes_and_go_along_with_an_export(tmp_path, live):
    workspace = Workspace(tmp_path, create=True)
    discovered(workspace, "ioi", "smollm2-135m", 6, 4, ["a", "b"])
    client = create_app(workspace, live=live).server.test_client()
    client.get("/", headers=HERE)  # brings the key that writes need
    path, edits = "/circuit-data/edge-circuits/ioi/edits.json", {"groups": [["<b>early</b>", ["L0H0", "L0H1"]]]}
    assert client.post(path, json={"edits": edits, "was": {}}, headers=HERE).get_json() == {"edits": edits}
    opened = client.get("/circuit-data/edge-circuits/ioi/graph.json?n=7&paths=1", headers=HERE).get_json()
    assert (opened["edits"], opened["shown"]) == (edits, {"n": 7, "paths": True})
    part = client.post("/circuit-data/edge-circuits/ioi/part.json", json=opened["shown"], headers=HERE)
    assert opened["part"] == part.get_json()
    assert client.post(path, json={"edits": {}, "was": {}}, headers=HERE).status_code == 409, "changed meanwhile"
    exported = client.get("/circuit-data/edge-circuits/ioi/export.json?n=7&paths=1", headers=HERE).get_json()
    assert exported["about"]["shown"] == {"n": 7, "paths": True, "groups": edits["groups"]}
    wrong = {"groups": [["a", ["L0H0", "head five"]]]}
    assert "node id" in client.post(path, json={"edits": wrong, "was": edits}, headers=HERE).get_json()["error"]
    assert client.post(path, json={"edits": {}, "was": edits}, headers=HERE).get_json() == {"edits": {}}


@pytest.mark.parametrize(
    ("what", "body", "status", "says"),
    [
        ("part", {"n": 0}, 400, "n should be greater than or equal to 1"),
        ("part", {"n": 1.5}, 400, "n should be a valid integer"),
        ("part", {"n": True}, 400, "n should be a valid integer"),
        ("groups", {"by": "reader"}, 404, "readers"),
        ("groups", {"by": "band", "n": 100}, 200, "layers 0 to 1"),
    ],
)
def test_a_request_of_the_graph_is_answered_in_words(server, what, body, status, says):
    client = server.test_client()
    client.get("/", headers=HERE)
    answer = client.post(f"/circuit-data/edge-circuits/ioi/{what}.json", json=body, headers=HERE)
    assert answer.status_code == status
    assert says in answer.get_data(as_text=True)


# --- what is said ---


def shown(**changes) -> dict:
    return {"n": None, "paths": False} | changes


@pytest.mark.parametrize("name", ["induction", "ioi"])
@pytest.mark.parametrize("changes", [{}, {"n": 3}, {"n": 400, "paths": True}])
def test_table_and_graph_show_the_same_edges(server, workspace, name, changes):
    rows, *_ = page.draw_circuit(shown(**changes), name, "dark")
    drawn = part(open_circuit(workspace, name), CircuitView(**changes))
    assert len({row["id"] for row in rows}) == len(rows) == len(drawn["edges"])
    assert drawn["said"].startswith(f"{len(rows):,} of " if rows else "No edge lies on a path")


def test_an_edge_shows_its_evidence_and_the_pattern_of_its_reader(server):
    side = page.show_evidence("L1H2-k-L4H1", shown(), "induction", "light")
    said = text_of(side)
    for words in (
        "drop of the strict induction score",
        "+0.81",
        "+0.044",
        "−0.003",
        "0.76 to 0.85",
        "composition of the weights",
        "Attention of L4H1",
    ):
        assert words in said, words
    assert "circuit-pattern" in said


def test_table_and_panel_agree_in_sign_interval_and_unit(server, workspace):
    for name in ("induction", "ioi"):
        found = open_circuit(workspace, name)
        rows = view.scored(found).rows
        for row in rows[:6]:
            numbers = view.measured(row)
            assert numbers["score"] == row.score == page.table_row(row)["score"]
            assert "effect" not in numbers
            if row.low is not None:
                assert (numbers["low"], numbers["high"]) == (row.low, row.high)
                assert row.low <= row.score <= row.high
        side = text_of(page.show_evidence(rows[0].id, shown(), name, "light"))
        assert f"score: {found.unit}" in side
        assert found.unit in text_of(page.table_panel(found.unit))
    assert "effect on the metric, in units of the" in open_circuit(workspace, "ioi").unit


def test_terms_of_a_table_link_to_the_glossary():
    from dashboard.components.evidence import evidence_table
    from dashboard.components.glossary import glossary

    table = text_of(evidence_table({"p_holm": 0.01, "induction_score_tl": 0.5, "ov_copying": 0.9, "exact": 1.0}))
    for name in ("Holm correction", "induction score by stripe", "OV eigenvalue"):
        assert f"/glossary#{glossary()[name].anchor}" in table
        assert glossary()[name].meaning in table


def test_an_edge_with_both_scores_shows_exact_beside_estimated(server):
    row = view.checked(open_circuit(server.config["workbench"].workspace, "ioi"))[0]
    chosen = view.edge_id(row.source, row.target, row.via)
    said = text_of(page.show_evidence(chosen, shown(), "ioi", "light"))
    assert "estimated effect" in said
    assert number(row.exact, signed=True) in said


def test_a_head_leads_to_the_heads_page_and_lists_its_edges(server):
    said = text_of(page.show_evidence("L1H2", shown(), "induction", "light"))
    assert "/heads/smollm2-135m?head=L1H2" in said
    assert "previous token" in said
    assert '"data-circuit-at": "L1H2-k-L4H1"' in said


def test_a_part_shows_the_score_of_all_that_it_writes(server, workspace):
    found = open_circuit(workspace, "ioi")
    strongest, total = view.strongest_nodes(found, 3)
    assert len(strongest) == 3 < total
    sizes = [abs(row.score) for row in strongest]
    assert sizes == sorted(sizes, reverse=True)
    said = text_of(summary(found, LIGHT))
    assert "Strongest nodes" in said
    row = strongest[0]
    assert f'"data-circuit-at": "{row.node}"' in said
    side = text_of(page.show_evidence(row.node, shown(), "ioi", "light"))
    for value in (number(row.score, signed=True), number(row.exact, signed=True), "95 % interval"):
        assert value in side, value
    assert view.node_score(found, "L99H9") is None
    assert "Strongest nodes" not in text_of(summary(open_circuit(workspace, "induction"), LIGHT))


def test_groups_and_their_lines_open_too(workspace):
    found = open_circuit(workspace, "induction")
    rows = view.scored(found).strongest(None)
    group = text_of(details(workspace, found, rows, ["L1H2", "L3H0"], LIGHT))
    assert "A group of 2 nodes" in group
    assert "Is read by" in group
    assert "Within" in group
    line = text_of(details(workspace, found, rows, ["L1H2-k-L4H1", "L1H2-k-L5H3"], LIGHT))
    assert "2 edges through its key" in line
    assert "L1H2-k-L4H1" in line


def test_summary_says_verdict_rule_and_scores(workspace):
    with create_app(workspace, live=FakeLive()).server.app_context():
        said = text_of(page.layout(PageSources(workspace, FakeLive()), name="induction"))
    assert "Holm over all heads" in said
    assert "they back each other up" in said
    assert "ablating them changes the loss on repeats by" in said
    assert re.search(r"\d+ heads attend by induction", said), "why it has fewer heads than the page Heads"
    assert "claim induction-circuits/induction --number path" in said
    said = text_of(summary(open_circuit(workspace, "ioi"), DARK))
    assert '"0.87"' in said
    assert "random circuits" in said
    assert "Held fixed" not in said


def test_summary_says_what_was_held_fixed():
    held = edge_circuit("m", 2, 2, ["a"], frozen="the scale of a norm")
    assert "Held fixed: the scale of a norm." in " ".join(held.details())


def test_evidence_flattens_cuts_and_keeps_text_inert():
    table = evidence_table(
        {"p_holm": 1e-5, "controls": {"q": 0.1}, "note": HOSTILE[0], "low": None, "many": list(range(99))}
    )
    said = text_of(table)
    assert "controls · q" in said
    assert "1.00e-05" in said
    assert "and 93 more" in said
    assert "dangerously" not in said


def test_the_number_of_edges_in_an_address_is_within_what_there_is(ioi):
    _, scored = ioi
    assert [scored.number(text) for text in ("", "many", "0", "7", "99999")] == [None, None, 1, 7, view.MAX_EDGES]


def test_heads_page_shows_the_evidence_or_the_command(small, workspace, live):
    from dashboard.heads import page as heads

    said = text_of(heads.layout(PageSources(workspace, live), "smollm2-135m"))
    assert "/circuit/induction-circuits/induction" in said
    assert '"best_sender": "L1H2"' in said
    assert "The map scores attention alone" in said
    shutil.rmtree(small.root / "induction-circuits")
    assert "workbench circuit induction smollm2-135m" in text_of(heads.layout(PageSources(small, live), "smollm2-135m"))


# --- circuits of several kinds under one name ---


def test_circuits_of_two_kinds_with_one_name_are_both_reached_by_menu_and_address(small, live):
    first, second = (small.find(name, *kinds_of("circuit")) for name in ("induction", "ioi"))
    assert first.kind != second.kind
    named, newer = small.path(second.kind, "induction"), "2999-01-01T00:00:00Z"
    small.path(second.kind, "ioi").rename(named)
    write_json(named / MANIFEST, read_json(named / MANIFEST) | {"name": "induction", "created": newer})
    keys = {each.kind: f"{FOLDERS[each.kind]}/induction" for each in (first, second)}
    numbers = {kind: len(open_circuit(small, key).circuit.edges) for kind, key in keys.items()}
    assert len(set(numbers.values())) == 2
    app = create_app(small, live=live)
    menu = {each["label"]: each["value"] for each in options(page.layout(PageSources(small, live)))}
    assert menu == {
        "induction · induction circuit": "/circuit/induction-circuits/induction",
        "induction · edge circuit": "/circuit/edge-circuits/induction",
    }
    with app.server.app_context():
        for kind, number_of_edges in numbers.items():
            address = menu[f"induction · {kind.replace('_', ' ')}"]
            shown = page.layout(PageSources(small, live), name=address.removeprefix("/circuit/"))
            key = of_id(shown, "circuit-name").data
            assert key == keys[kind]
            assert of_id(shown, "artefact-menu").value == address
            rows = page.draw_circuit({"n": None, "paths": False}, key, "light")[0]
            assert len(rows) == number_of_edges
            answer = app.server.test_client().get(f"/circuit-data/{key}/export.json", headers=HERE)
            assert len(answer.get_json()["edges"]) == number_of_edges
    bare = page.layout(PageSources(small, live), name="induction")
    assert of_id(bare, "circuit-name").data == keys[second.kind], "the newest"


def test_a_menu_says_the_kind_only_where_a_name_occurs_twice(workspace, live):
    labels = [each["label"] for each in options(page.layout(PageSources(workspace, live)))]
    assert sorted(labels) == ["induction", "ioi"]


def of_id(tree, identity: str):
    """The component of a page with this id."""
    return next(each for each in tree._traverse() if getattr(each, "id", None) == identity)


def options(tree) -> list[dict]:
    return of_id(tree, "artefact-menu").data


# --- keys and values that several heads share ---


def test_a_shared_key_puts_every_head_of_its_group_on_the_path():
    rows = [edge("embed", "L0H0", "k"), edge("L0H1", "logits"), edge("L0H3", "logits")]
    assert [row.id for row in view.on_paths(rows, 3)] == ["embed-k-L0H0", "L0H1--logits"]
    assert view.on_paths(rows, 1) == []


def test_the_size_of_a_group_is_that_of_the_circuit():
    assert view.scored(edge_circuit("m", 2, 6, ["a"], group_size=3)).group == 3


def test_lists_of_records_become_tables():
    from dashboard.components.evidence import records_table

    rows = [{"sender": HOSTILE[0], "via": "k", "loss_second_half": 0.5, "low": 0.4, "high": 0.6}] * 20
    said = text_of(records_table(rows))
    assert "0.4 to 0.6" in said
    assert "and 6 more" in said
    assert "+0.5" in said


def test_a_circuit_that_was_not_found_says_so(tmp_path, live):
    from dashboard.app import create_app

    workspace = Workspace(tmp_path, create=True)
    verdict = Verdict(holds=False, rule="R", reason="no head attends by induction")
    found = replace(induction_circuit("m", 6, 4, ["a", "b"]), circuit=Circuit("m", "h"), verdict=verdict)
    save_artefact(found, workspace.path("induction_circuit", "induction"))
    app = create_app(workspace, live=live)
    with app.server.app_context():
        said = text_of(page.layout(PageSources(workspace, live), name="induction"))
        rows, *_ = page.draw_circuit(shown(), "induction", "light")
    assert rows == []
    assert "found no circuit" in part(open_circuit(workspace, "induction"), CircuitView())["said"]
    assert "No induction circuit found in m" in said
    assert "no head attends by induction" in said, "the reason, folded"
