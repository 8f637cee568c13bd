"""Texts of pages link their terms to the entries of the page *Glossary*."""

import re
from typing import Any

from page_text import text_of

from dashboard.app import create_app, safe_layout
from dashboard.components.glossary import explained, glossary
from dashboard.components.pages import find_pages
from dashboard.glossary.page import PAGE


def test_the_first_mention_of_a_term_is_a_link_that_shows_its_meaning():
    parts: Any = explained("Beside the null distributions, nullable: a null, and held")
    first, link, rest = parts
    assert (first, rest) == ("Beside the ", ", nullable: a null, and held")
    assert link.children == "null distributions"
    assert link.href == "/glossary#null"
    assert link.title == glossary()["null"].meaning


def test_a_text_without_terms_stays_as_it_is():
    assert explained("a text about heads") == ["a text about heads"]
    assert explained("") == []


def test_the_page_has_every_term_under_its_address(workspace, live):
    with create_app(workspace, live=live).server.app_context():
        shown = text_of(safe_layout(PAGE)(scheme="light"))
    assert set(re.findall(r'"id": "([^"]*)"', shown)) >= {term.anchor for term in glossary().values()}
    assert '"blocks.9.hook_resid_post"' in shown


def test_every_link_of_a_page_leads_to_an_entry(workspace, live):
    known = {term.anchor for term in glossary().values()}
    linked: set[str] = set()
    with create_app(workspace, live=live).server.app_context():
        for each in find_pages():
            linked |= set(re.findall(r"href[^/]*/glossary#([\w-]+)", str(safe_layout(each)(scheme="light"))))
    assert linked <= known
    assert {"null", "ablation"} <= linked
