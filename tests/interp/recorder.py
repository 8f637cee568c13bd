"""Records the same small corpus every time; run as a script it can be killed at any moment.

python tests/interp/recorder.py FOLDER [SECONDS_PER_BATCH]
"""

import sys
import time
from pathlib import Path

from interp.models.loading import load_model
from interp.recording.record import record
from interp.recording.recorded import RecordConfig, Recorded
from interp.text.corpora import Document

HOOK_POINTS = ["blocks.0.hook_resid_post", "blocks.1.attn.hook_z"]
SETTINGS = RecordConfig(tokens=6000, context_length=32, batch_size=4, shard_contexts=8)


def documents() -> list[Document]:
    """120 documents of varied length whose text names them."""
    return [Document(f"document {n} " + "abc def. " * (3 + n % 7), f"doc-{n}", f"part-{n % 3}") for n in range(150)]


def record_all(folder: Path, pause: float = 0.0, config: RecordConfig = SETTINGS) -> Recorded:
    """A recording of 24 shards or so; `pause` seconds after every batch widen the window for a kill."""
    model = load_model("small:attn-only-2l", seed=0)
    return record(model, documents(), folder, config, hook_points=HOOK_POINTS, progress=lambda *_: time.sleep(pause))


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    record_all(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
