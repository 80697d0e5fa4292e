"""DINO's published vision transformers: the teacher's backbone alone. Caron et al., ICCV 2021.

Other transformers without a head have the same names; `layout=timm` reads a file as timm's own.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import NOT_PLAIN, PLACES, PLAIN, fixed_in, is_headless, is_plain
from fss_bench.weight_layout import MOMENTUM, State, WeightLayout, at_places


def _is_learned_alone(names: State) -> bool:
    return is_plain(names) and is_headless(names) and not fixed_in(names)


def _rivals(names: State) -> tuple[str, ...]:
    """DINO's are published bare."""
    return () if "/pos_embed" in names else ("timm",)


LAYOUT = WeightLayout(
    "DINO's ViT",
    "https://github.com/facebookresearch/dino",
    encoders=at_places(MOMENTUM, PLACES),
    marks=(*PLAIN, r"(model|state_dict)?/norm\.weight"),
    lacks=(*NOT_PLAIN, r"[^/]*/(head|fc_norm|mask_token).*"),
    where=_is_learned_alone,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    positions="offset",
    rivals=_rivals,
)
