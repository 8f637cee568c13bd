"""A feature as one HTML file: nothing asked from outside, hostile texts escaped, the numbers those of the tables."""

import re
from html.parser import HTMLParser

import pytest
from make_workspace import HOSTILE
from visit import HEADERS as HERE

from dashboard.components.markup import escaped
from dashboard.data import features as view
from dashboard.feature.export import feature_html
from interp.errors import UsageError
from interp.notes import Notes
from saes.features.schema import Features

KNOWN = {
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "span", "p", "div", "section"),
    *("ol", "li", "a", "b", "strong", "footer", "mark", "details", "summary"),
}


class Page(HTMLParser):
    """Everything that a page consists of."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.said.append(data)


@pytest.mark.parametrize("index", [0, 1, 2, 3, 5, 7, 8, 12])
def test_a_page_has_no_script_and_asks_for_nothing(workspace, index):
    page = Page(feature_html(workspace, "demo", index))
    assert {tag for tag, _ in page.tags} <= KNOWN
    names = {name for _, attrs in page.tags for name in attrs}
    assert not {name for name in names if name.startswith("on")} | names & {"src", "href", "srcset", "data", "action"}
    style = next(text for text in page.said if "--wb-surface:" in text)
    assert not re.search(r"url\(|@import|http", style)
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert "prefers-color-scheme: dark" in style


def test_hostile_tokens_are_texts(workspace):
    said = "".join(Page(feature_html(workspace, "demo", 0)).said)
    assert HOSTILE[0] in said  # its label
    texts = feature_html(workspace, "demo", 1)
    assert "<img" not in texts
    assert "&lt;img src=x onerror=&#x27;window.pwned=1&#x27;&gt;" in texts


def test_controls_reversals_and_lone_surrogates_are_replaced():
    assert escaped("a\x00b\u202ec\ud800d") == "a\ufffdb\ufffdc?d"
    assert escaped("\"><'&") == "&quot;&gt;&lt;&#x27;&amp;"


def test_the_numbers_are_those_of_the_tables(workspace):
    row, text = view.one(workspace, "demo", 12).row, feature_html(workspace, "demo", 12)
    assert f"{row.n_fired:,}" in text
    first = view.examples(workspace.open(Features, "demo"), 12)[0]
    assert f"{first.activation:.3g}" in text
    assert f"position {first.position}" in text
    assert len(re.findall(r'class="[^"]*wb-peak', text)) == 18
    assert "<h2>Suppresses</h2>" in text
    assert "detection" not in text
    assert "0.81" in feature_html(workspace, "demo", 10)
    assert "[0.52]" in feature_html(workspace, "demo", 10)
    assert workspace.manifest("features", "demo").content_hash in text
    assert "Stronger than 199 of 200 random directions" in feature_html(workspace, "demo", 0)
    assert "Effects on all logits" not in feature_html(workspace, "neurons", 1)


def test_a_dead_feature_and_an_own_name(workspace, own):
    assert "It never fired." in feature_html(workspace, "demo", 7)
    Notes.open(own).set("features/demo#12", title="months <i>")
    assert '<h1 dir="auto">months &lt;i&gt;</h1>' in feature_html(own, "demo", 12)
    with pytest.raises(UsageError):
        feature_html(own, "demo", 999)


def test_the_address_gives_a_file_or_the_reason(workspace, visitor):
    assert "/api/feature.html?features=demo&index=12" in visitor.open("/feature/demo/12")

    def get(query):
        return visitor.client.get(f"/api/feature.html?{query}", headers=HERE)

    found = get("features=demo&index=12")
    assert found.status_code == 200
    assert found.headers["Content-Disposition"] == "attachment; filename*=UTF-8''demo-12.html"
    assert found.get_data(as_text=True) == feature_html(workspace, "demo", 12)
    for query, status in (("features=demo&index=9999", 400), ("features=gone&index=1", 404), ("index=1", 400),
                          ("features=demo&index=-1", 400), ("features=demo&index=²", 400)):  # fmt: skip
        assert get(query).status_code == status, query
