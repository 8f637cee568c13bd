"""Known vulnerabilities of what lock/ pins, by pip-audit: `make audit`.

The service answers for one distribution first. Where it does not, as behind a mirror without that feed, the others are
not asked for: a warning says that nothing was audited, and the exit code is 0, or 3 with `--require`. A vulnerability
is exit code 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.lock import HOME, WEIGHTS_FILE, entries, name_of

LOCKS = ("run.txt", "cuda.txt", "dev.txt", WEIGHTS_FILE)


def ask(pinned: Iterable[str]) -> list[dict[str, Any]]:
    """Return what the service knows of pinned requirements, one row a distribution.

    Raises `ConnectionError` with the reason when it cannot be asked.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("\n".join([*pinned, ""]), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", file, "--disable-pip", "--require-hashes"]
        command += ["--format", "json", "--progress-spinner", "off"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    try:
        return json.loads(ran.stdout)["dependencies"]
    except (ValueError, KeyError):
        lines = ran.stderr.strip().splitlines() or [f"pip-audit ended with {ran.returncode}"]
        raise ConnectionError(lines[-1]) from None


def audit(pinned: dict[str, str], service: Callable[[Iterable[str]], list[dict[str, Any]]], required: bool) -> int:
    """Print what is known to be vulnerable; return the exit code."""
    first = next(iter(pinned.values()))
    try:
        (probe,) = service([first])
        reason = probe.get("skip_reason", "")
        rows = [] if reason else service(pinned.values())
    except ConnectionError as error:
        reason, rows = str(error), []
    if reason:
        print(f"WARNING: the vulnerability service does not answer here ({reason}); 0 of {len(pinned)} pins audited")
        return 3 if required else 0
    for row in rows:
        for known in row.get("vulns", []):
            fixed = ", ".join(known.get("fix_versions", [])) or "no version yet"
            print(f"{row['name']} {row['version']}: {known['id']}, fixed in {fixed}")
        if "skip_reason" in row:
            print(f"WARNING: not audited: {row['name']} ({row['skip_reason']})")
    audited, bad = [row for row in rows if "vulns" in row], [row for row in rows if row.get("vulns")]
    print(f"{len(audited)} of {len(pinned)} pins audited, {len(bad)} of them vulnerable")
    return 1 if bad else 3 if required and len(audited) < len(rows) else 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--require", action="store_true", help="exit code 3 where something could not be audited")
    options = parser.parse_args(arguments)
    pinned = {key: entry for lock in LOCKS for key, entry in entries((HOME / lock).read_text("utf-8")).items()}
    assert len({name_of(key) for key in pinned}) > 100
    return audit(pinned, ask, options.require)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
