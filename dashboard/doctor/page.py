"""*Doctor*: the certificate of a model, and of a dictionary in it, one line per check, failed ones open."""

from dash import html

from dashboard.components.frame import page, panel, verdict
from dashboard.components.pages import Page, artefact_menu, menu_choices, page_of
from dashboard.sources import PageSources, open_artefact
from interp.doctor.certificate import PARTS, QUESTIONS, Certificate, Check
from interp.errors import program
from interp.models.short_name import short_name

KIND = "certificate"
SIGNS = {"passed": "passed", "failed": "FAILED", "not checked": "not checked", "measured": "measured"}


def layout(context: PageSources, name: str | None = None, **_: object) -> html.Div:
    """`/doctor/<name>`; without a name the newest certificate."""
    workspace = context.workspace
    certificate = workspace.open(Certificate, open_artefact(workspace, (KIND,), name).name)
    choices = menu_choices(workspace, (KIND,))
    parts = [
        panel(title, _table(checks), note=QUESTIONS[part], className="wb-doctor")
        for part, title in PARTS.items()
        if (checks := [check for check in certificate.checks if check.part == part])
    ]
    return page(
        "Doctor",
        _verdict(certificate),
        *parts,
        controls=artefact_menu("Certificate", choices, page_of(certificate.href), width=260, key=certificate.key),
    )


def _verdict(certificate: Certificate) -> html.Div:
    of = certificate.settings
    when = certificate.about.created[:16].replace("T", " ")
    what = f"{short_name(of.model)}{f' with {of.dictionary}' if of.dictionary else ''} on {certificate.device} in "
    what += f"{certificate.dtype}, {when}."
    rest = f"{program()} doctor {of.model} runs all checks." if of.quick else "All checks were run."
    hint = "Each line is an experiment; open it for what was done, and for what a failure means."
    quick = " Quick checks only." if of.quick else ""
    return verdict(f"{certificate.headline()}.{quick}", html.P(what), html.P(rest), html.P(hint))


def _table(checks: list[Check]) -> html.Div:
    rows = [html.Tr([html.Th(text, scope="col") for text in ("check", "verdict", "expected", "what came")])]
    for check in checks:
        sign = html.Span(SIGNS[check.verdict], className=f"wb-sign wb-sign-{check.verdict.replace(' ', '-')}")
        rows.append(
            html.Tr([html.Th(check.name, scope="row"), html.Td(sign), html.Td(check.expected), html.Td(_about(check))])
        )
    return html.Div(html.Table(rows, className="wb-checks"), className="wb-scroll")


def _about(check: Check) -> html.Details:
    """Return the result, with the method and the meaning of a failure folded; open if the check failed."""
    details = [("done", check.did), ("a failure means", check.means)]
    lines = [part for name, text in details if text for part in (html.Dt(name), html.Dd(text))]
    return html.Details([html.Summary(check.came), html.Dl(lines)], open=check.verdict == "failed")


PAGE = Page(
    title="Doctor",
    path="/doctor",
    templates=("/doctor/<name>",),
    group="work",
    order=97,
    about="Experiments that check model and dictionary",
    layout=layout,
    shows="Whether a model, its hook points and a dictionary in it do what they should: experiments with what was "
    "done, expected and found. A number that is wrong without an error shows here first.",
    command="workbench doctor MODEL",
    fill=lambda _, model: ("doctor", {"model": model}),
)
