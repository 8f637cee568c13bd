"""Short name of a model, for pages and names of artefacts; commands take the whole spec. Torch-free."""

import re

from interp.models.packaged import PACKAGED

_SNAPSHOT = re.compile(r".*models--(?:[^/]*--)?([^/]+)/snapshots/[^/]+$")
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_BITS = re.compile(r"[-._](?:i?q\d\w*|b?f(?:p)?(?:16|32))$", re.IGNORECASE)


def short_name(spec: str) -> str:
    """Return the name of a model without owner, folder, file format or number of bits.

    >>> short_name("google/gemma-3-270m"), short_name("gemma3-270m"), short_name("models/gemma-3-270m-Q4_K_M.gguf")
    ('gemma-3-270m', 'gemma-3-270m', 'gemma-3-270m')
    >>> short_name("smollm2-135m+runs/my-lora/")
    'my-lora on smollm2-135m'
    """
    base, _, adapter = spec.partition("+")
    if adapter:
        return f"{short_name(adapter)} on {short_name(base)}"
    if spec in PACKAGED:
        return PACKAGED[spec].name
    path = spec.replace("\\", "/").rstrip("/")
    last = _SNAPSHOT.sub(r"\1", path).rsplit("/", 1)[-1]
    if last.lower().endswith(".gguf"):
        last = _BITS.sub("", _SPLIT.sub("", last[: -len(".gguf")]))
    return last or spec
