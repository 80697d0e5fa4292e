"""What files of lightly's modules have in common."""

import re

from fss_bench.weight_layout import State


def has_plain_backbone(names: State) -> bool:
    """Whether no `student_backbone` or `query_backbone` says that `backbone` is its average."""
    parts = {match[1] for name in names if (match := re.match(r"[^/]*/(\w*backbone)\.", name))}
    return "backbone" not in parts or not {"student_backbone", "query_backbone"} & parts
