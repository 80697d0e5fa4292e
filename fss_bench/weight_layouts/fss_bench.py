"""Our own: what `fss-bench pretrain` and `fss-bench convert` write."""

from fss_bench.weight_layout import MOMENTUM, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "fss-bench pretrain",
    "fss_bench",
    encoders=(Encoder(QUERY, "/query."), Encoder(MOMENTUM, "/momentum.")),
    marks=(r"/query\..*",),
)
