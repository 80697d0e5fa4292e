"""PANet: one prototype per class by masked average pooling, pixels by cosine similarity.

Wang et al., ICCV 2019, https://arxiv.org/abs/1908.06391.

Differs from the paper: no alignment loss (it acts in training alone); any backbone; the scores of
several levels may be averaged (the paper uses one, the last of VGG-16).
"""

from torch import Tensor, cat, stack

from fss_bench.backbone import Backbone, Features
from fss_bench.method import Method, methods
from fss_bench.ops import cosine_to_prototypes, masked_average_pool, resize_logits


@methods.register("panet")
class PANet(Method):
    """Prototypes by masked average pooling (section 3.2), cosine scores (section 3.3, equation 3).

    Args:
        backbone: the feature extractor.
        level: a level, or several joined by `+`, whose scores are averaged at the finest of them;
            by default the backbone's.
        scale: factor on the cosine before the softmax.
        input_size: side of the input square; by default the backbone's (417 as in the paper, or
            what it needs).
    """

    def __init__(
        self,
        backbone: Backbone,
        level: str | None = None,
        scale: float = 20.0,
        input_size: int | None = None,
    ) -> None:
        super().__init__(backbone, (level or backbone.default_level).split("+"), input_size)
        self.scale = scale

    def segment(self, support: Features, support_masks: Tensor, query: Features) -> Tensor:
        """Logits [B, 1 + N, h, w] at the finest level's size."""
        scores = [self._scores(support[at], support_masks, query[at]) for at in self.levels]
        size = max((tuple(s.shape[-2:]) for s in scores), key=lambda hw: hw[0])
        resized = [resize_logits(s, (size[0], size[1])) for s in scores]
        return self.scale * stack(resized).mean(dim=0)

    def _scores(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        foreground = masked_average_pool(support, masks == 1).mean(dim=2)  # [B, N, C]
        background = masked_average_pool(support, masks == 0).mean(dim=(1, 2))  # [B, C]
        prototypes = cat([background[:, None], foreground], dim=1)  # [B, 1 + N, C]
        return cosine_to_prototypes(query, prototypes)
