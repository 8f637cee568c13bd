"""Pieces of a page as HTML for a notebook or a file: no scripts, no requests, texts only as text."""

import html as text_of
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import flask
from dash.development.base_component import Component

from dashboard.figures.theme import DARK, LIGHT, visible

STYLE = Path(__file__).parent.parent / "assets" / "style.css"
_VOID = {"br", "hr", "img", "input"}
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a page cannot contain, and those that reverse the text after them."""


def markup(component: Component, scheme: str) -> str:
    """Return a piece of a page as HTML, with the rules of its classes; `both` follows the reader's own scheme."""
    body = "".join(_markup(component))
    classes = set(re.findall(r"\bwb-[\w-]+", body))
    return f'<style>{_rules(frozenset(classes), scheme)}</style><div class="wb-shown wb-{scheme}">{body}</div>'


def page_file(title: str, body: Component, *, head: str = "") -> str:
    """Return a page as one file that opens without a server, in the reader's own scheme.

    Its policy allows no request and no script. `head` is HTML.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    style = (
        f"body {{ margin: 0; background: {LIGHT.surface} }} main {{ max-width: 1080px; margin: 0 auto }} "
        f"@media (prefers-color-scheme: dark) {{ body {{ background: {DARK.surface} }} }}"
    )
    return (
        f'<!doctype html>\n<html lang=en><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{escaped(visible(title, 200))}</title><style>{style}</style>{head}</head>\n"
        f"<body>{markup(body, 'both')}</body></html>\n"
    )


def download(text: str, name: str) -> flask.Response:
    """Return the answer by which a browser saves such a file."""
    answer = flask.Response(text, 200, mimetype="text/html")
    answer.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return answer


def _markup(node: Any) -> Iterator[str]:
    if isinstance(node, list | tuple):
        for child in node:
            yield from _markup(child)
    elif isinstance(node, Component):
        values = node.to_plotly_json()["props"]
        children = values.pop("children", None)
        if node._type == "Button":
            return  # does nothing without scripts
        tag = node._type.lower() if node._namespace == "dash_html_components" else "span"  # a link leads nowhere here
        attributes = {
            "class": values.get("className"),
            "style": _style(values.get("style")),
            "title": values.get("title") or values.get("data-tip"),
            "dir": values.get("dir"),
        }
        attributes |= {key: value for key, value in values.items() if key.startswith(("data-", "aria-"))}
        text = "".join(f' {key}="{escaped(value)}"' for key, value in attributes.items() if value is not None)
        yield f"<{tag}{text}>"
        yield from _markup(children)
        if tag not in _VOID:
            yield f"</{tag}>"
    elif node is not None and not isinstance(node, bool):
        yield escaped(node)


def escaped(value: object) -> str:
    """Return a text escaped, without characters that UTF-8 cannot encode."""
    plain = str(value).encode("utf-8", "replace").decode()
    return text_of.escape(_UNFIT.sub("\N{REPLACEMENT CHARACTER}", plain))


def _style(style: dict[str, object] | None) -> str | None:
    return None if style is None else "; ".join(f"{key}: {value}" for key, value in style.items())


@cache
def _rules(classes: frozenset[str], scheme: str) -> str:
    """Return the rules of the pages for these classes, applied within `wb-shown` only."""
    css = re.sub(r"/\*.*?\*/", "", STYLE.read_text(encoding="utf-8"), flags=re.DOTALL)
    variables = re.findall(r'^(:root, html\[data-scheme="light"\]|html\[data-scheme="dark"\]|:root) \{(.*?)\}', css,
                           re.DOTALL | re.MULTILINE)  # fmt: skip

    def own(scheme: str) -> str:
        return "".join(body for where, body in variables if "data-scheme" not in where or f'"{scheme}"' in where)

    shown = own("light" if scheme == "both" else scheme)
    dark = f"@media (prefers-color-scheme: dark) {{ .wb-shown.wb-both {{ {own('dark')} }} }}"
    look = "background: var(--wb-surface); color: var(--wb-text); padding: 12px; font: 14px/1.5 var(--wb-font)"
    wanted = [
        f".wb-shown.wb-{scheme} {{ {shown} {look} }}",
        *([dark] if scheme == "both" else []),
        ".wb-shown :is(ol, p, h2, h3) { margin: 0; padding: 0; list-style: none }",
    ]
    for selectors, body in re.findall(r"^(\.[^{}]*)\{([^{}]*)\}", css, re.MULTILINE):
        if classes & set(re.findall(r"\.(wb-[\w-]+)", selectors)):
            scoped = ", ".join(f".wb-shown {selector.strip()}" for selector in selectors.split(","))
            wanted.append(f"{scoped} {{{body}}}")
    return "\n".join(wanted)
