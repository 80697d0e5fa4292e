"""A ResNet trained by solo-learn, always with a linear classifier beside. da Costa, JMLR 2022."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, MEMORY, MOMENTUM, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "a ResNet of solo-learn",
    "https://github.com/vturrisi/solo-learn",
    encoders=(
        Encoder(QUERY, "state_dict/backbone."),
        Encoder(QUERY, "state_dict/encoder."),
        Encoder(MOMENTUM, "state_dict/momentum_backbone."),
        Encoder(MOMENTUM, "state_dict/momentum_encoder."),
    ),
    marks=(r"state_dict/(backbone|encoder)\.conv1\.weight", r"state_dict/classifier\.weight"),
    lacks=(
        "meta",
        r"state_dict/(base_encoder|encoder_k|online_classifier)\..*",
        r"state_dict/(student|query|teacher)_backbone\..*",
    ),
    heads={r"fc\..*": HEAD},
    others={
        r"state_dict/(momentum_)?classifier\.(weight|bias)": HEAD,
        r"state_dict/((momentum_)?(projector|head)|predictor2?|transformer_encoder)\..*": HEAD,
        r"state_dict/prototypes\..*": "prototypes of clusters",
        r"state_dict/(queue(_y|_ptr|_index)?|local_memory_(index|embeddings))": MEMORY,
        r"state_dict/(dino_loss_func|whitening|pos_enc)\..*": MEMORY,
    },
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
