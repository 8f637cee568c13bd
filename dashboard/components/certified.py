"""The mark of a page whose numbers were made under a certificate: all checks passed, some failed, or none exists."""

from dash import html

from interp.artifacts import FOLDERS, address_of
from interp.doctor.certificate import Certificate
from interp.errors import program
from interp.workspace import Workspace

CERTIFICATE = Certificate.kind


def certified(workspace: Workspace, key: str) -> html.A | None:
    """Return a link to the certificate under which the artefact of a key was made, or one that says there was none.

    Of several certificates, of a model and of a dictionary in it, it is the one that has most to say. None for a
    certificate itself.
    """
    folder, _, name = key.partition("/")
    kind = next((kind for kind, known in FOLDERS.items() if known == folder), "")
    if kind in ("", CERTIFICATE):
        return None
    parents, known = workspace.manifest(kind, name).parents, {each.key: each for each in workspace.values(Certificate)}
    under = {each: digest for each, digest in parents.items() if each.startswith(f"{FOLDERS[CERTIFICATE]}/")}
    if not under:
        hint = (
            f"Model and dictionary were not examined before these numbers were made: {program()} doctor MODEL does it"
        )
        return html.A("no certificate", href="/doctor", title=hint, className="wb-certified")
    (_, said, hint), shown = max((_standing(known.get(each), digest), each) for each, digest in under.items())
    address = address_of(CERTIFICATE, shown.partition("/")[2])
    return html.A(said, href=address, title=hint, className="wb-certified" + " wb-sign-failed" * (" failed" in said))


def _standing(found: Certificate | None, digest: str) -> tuple[int, str, str]:
    """Return how much a reader has to know of a certificate, the mark, and what it means."""
    if found is None:
        return 2, "certificate deleted", "Model or dictionary were examined before; the certificate is gone"
    if found.about.content_hash != digest:
        return 3, "examined anew since", "Model or dictionary were examined before, and again since: see the result"
    if found.failed:
        failed = found.with_verdict("failed")
        names = ", ".join(f"{each.part} {each.name}" for each in failed)
        return 4, f"{len(failed)} checks failed" if len(failed) > 1 else "1 check failed", f"{found.subject}: {names}"
    if found.settings.quick:
        return 1, "quick checks passed", f"{found.subject}: the quick checks were run before these numbers were made"
    return 0, "certified", f"{found.subject}: all checks were run before these numbers were made"
