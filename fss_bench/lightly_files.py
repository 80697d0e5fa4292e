"""What files of lightly's modules have in common."""

import re

from fss_bench.weight_layout import HEAD, MASK, MEMORY, State

OTHERS = {
    r"[^/]*/(\w+_)?(projection|prediction)_head(_\w+)?\..*": HEAD,
    r"[^/]*/((student|teacher)_head|online_classifier)\..*": HEAD,
    r"[^/]*/prototypes\..*": "prototypes of clusters",
    r"[^/]*/((\w+_)?criterion(_\w+)?|memory_bank|queues|smog)\..*": MEMORY,
}
"""What lightly's modules have beside backbones."""
TRANSFORMERS_OTHERS = {
    **OTHERS,
    r"[^/]*/(\w+_)?backbone(_momentum)?\.mask_token": MASK,
    r"[^/]*/decoder\..*": "the decoder",
}


def has_plain_backbone(names: State) -> bool:
    """Whether no `student_backbone` or `query_backbone` says that `backbone` is its average."""
    parts = {match[1] for name in names if (match := re.match(r"[^/]*/(\w*backbone)\.", name))}
    return "backbone" not in parts or not {"student_backbone", "query_backbone"} & parts
