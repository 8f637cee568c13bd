"""Which class belongs to a config, and to an architecture on disk. A new kind adds itself here."""

from saes.config import BatchTopKConfig, SAEConfig, TopKConfig
from saes.kinds.base import SAE
from saes.kinds.batchtopk import BatchTopKSAE
from saes.kinds.topk import TopKSAE

BY_CONFIG: dict[type[SAEConfig], type[SAE]] = {TopKConfig: TopKSAE, BatchTopKConfig: BatchTopKSAE}


def kind_of(config: SAEConfig) -> type[SAE]:
    """The class that a config trains."""
    return BY_CONFIG[type(config)]
