"""PixPro. Xie et al., CVPR 2021, https://arxiv.org/abs/2011.10043."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, State, WeightLayout


def _no_deep_stem(state: State) -> str | None:
    if "conv1.0.0.weight" in state:
        return "its ResNet-D has no twin in timm: take the file of a plain ResNet-50"
    return None


LAYOUT = WeightLayout(
    "PixPro",
    "https://github.com/zdaxie/PixPro",
    encoders=(Encoder(QUERY, "model/encoder."), Encoder(MOMENTUM, "model/encoder_k.")),
    marks=(r"model/encoder\.conv1\..*", r"model/(encoder_k|projector)\..*"),
    others={r"model/((projector|projector_instance)(_k)?|value_transform|predictor)\..*": HEAD},
    refuses=_no_deep_stem,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
