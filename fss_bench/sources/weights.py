"""Published weights of backbones; for hashes see `data.py`."""

from collections.abc import Iterable

from fss_bench.source import Source, SourceFile

OML = "OpenMetricLearning"
META = "https://dl.fbaipublicfiles.com"


def _weights(
    name: str, backbone: str, url: str, page: str, terms: str, file: str = "", **facts: str
) -> Source:
    """Weights of one file; facts are its hashes, and `known_from`."""
    known_from = facts.pop("known_from", "the page" if facts else "")
    named = file or url.rpartition("/")[2]
    source = SourceFile(named, url, page, terms, hashes=facts, known_from=known_from)
    return Source(name, f"weights for {backbone}", "weights", (source,), backbone=backbone)


def _moco() -> Iterable[Source]:
    page, terms = "https://github.com/facebookresearch/moco", "CC BY-NC 4.0"
    for name, md5 in (
        ("moco_v1_200ep", "b251726a"),
        ("moco_v2_200ep", "59fd9945"),
        ("moco_v2_800ep", "a04e12f8"),
    ):
        url = f"{META}/moco/moco_checkpoints/{name}/{name}_pretrain.pth.tar"
        yield _weights(name, "resnet50", url, page, terms, md5=md5)
    page += "-v3"
    for stem, name, backbone in (
        ("r-50-100ep", "moco_v3_resnet50_100ep", "resnet50"),
        ("r-50-300ep", "moco_v3_resnet50_300ep", "resnet50"),
        ("r-50-1000ep", "moco_v3_resnet50_1000ep", "resnet50"),
        ("vit-s-300ep", "moco_v3_vit_small", "vit_small_patch16_224"),
        ("vit-b-300ep", "moco_v3_vit_base", "vit_base_patch16_224"),
    ):
        url = f"{META}/moco-v3/{stem}/{stem}.pth.tar"
        yield _weights(name, backbone, url, page, terms, f"moco-v3-{stem}.pth.tar")


def _dino() -> Iterable[Source]:
    page, terms = "https://github.com/facebookresearch/dino", "Apache 2.0"
    for stem, backbone, md5 in (
        ("dino_deitsmall16", "vit_small_patch16_224", "cf0f22"),
        ("dino_deitsmall8", "vit_small_patch8_224", "230cd5"),
        ("dino_vitbase16", "vit_base_patch16_224", "552daf"),
        ("dino_vitbase8", "vit_base_patch8_224", "556550"),
    ):
        url = f"{META}/dino/{stem}_pretrain/{stem}_pretrain.pth"
        yield _weights(stem, backbone, url, page, terms, md5=md5, known_from=OML)
    url = f"{META}/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"
    yield _weights("dino_resnet50", "resnet50", url, page, terms)
    page += "v2"
    for name, backbone, md5 in (
        ("dinov2_vits14", "vit_small_patch14_dinov2", "2e405c"),
        ("dinov2_vits14_reg4", "vit_small_patch14_reg4_dinov2", "2a50c5"),
        ("dinov2_vitb14", "vit_base_patch14_dinov2", "8635e7"),
        ("dinov2_vitb14_reg4", "vit_base_patch14_reg4_dinov2", "13d13c"),
    ):
        url = f"{META}/dinov2/{name.removesuffix('_reg4')}/{name}_pretrain.pth"
        yield _weights(name, backbone, url, page, terms, md5=md5, known_from=OML)


def _other_self_supervised() -> Iterable[Source]:
    github, non_commercial = "https://github.com/facebookresearch", "CC BY-NC 4.0"
    for name in ("swav_800ep", "deepclusterv2_800ep"):
        url = f"{META}/deepcluster/{name}_pretrain.pth.tar"
        yield _weights(name, "resnet50", url, f"{github}/swav", non_commercial)
    for size, md5 in (("base", "8cad7c"), ("large", "b8b06e")):
        url = f"{META}/mae/pretrain/mae_pretrain_vit_{size}.pth"
        backbone = f"vit_{size}_patch16_224"
        yield _weights(f"mae_vit_{size}", backbone, url, f"{github}/mae", non_commercial, md5=md5)
    recipe = "epochs1000_bs2048_lr0.2_lambd0.0051_proj_8192_8192_8192_scale0.024"
    url, page = f"{META}/barlowtwins/{recipe}/resnet50.pth", f"{github}/barlowtwins"
    file = "barlowtwins_resnet50.pth"
    yield _weights("barlow_twins", "resnet50", url, page, non_commercial, file)
    url, file = f"{META}/vicreg/resnet50.pth", "vicreg_resnet50.pth"
    yield _weights("vicreg", "resnet50", url, f"{github}/vicreg", "MIT", file)
    url = f"{META}/simsiam/models/100ep/pretrain/checkpoint_0099.pth.tar"
    page, file = f"{github}/simsiam", "simsiam_100ep.pth.tar"
    yield _weights("simsiam", "resnet50", url, page, non_commercial, file)
    # its server stopped at the end of 2023; the file is named so wherever else it is
    url, file = (
        "https://cloudstor.aarnet.edu.au/plus/s/hdAg5RYm8NNM2QP/download",
        "densecl_r50_imagenet_200ep.pth",
    )
    page = "https://github.com/WXinlong/DenseCL"
    yield _weights("densecl", "resnet50", url, page, "see the page", file)


def _torchvision() -> Iterable[Source]:
    """Their names end in the first eight digits of their sha256."""
    page = "https://pytorch.org/vision/stable/models.html"
    for name, backbone, sha256 in (
        ("resnet50_v1", "resnet50", "0676ba61"),
        ("resnet50_v2", "resnet50", "11ad3fa6"),
        ("resnet101_v1", "resnet101", "63fe2227"),
        ("resnet101_v2", "resnet101", "cd907fc2"),
        ("vgg16", "vgg16", "397923af"),
        ("vgg16_bn", "vgg16_bn", "6c64b313"),
    ):
        url = f"https://download.pytorch.org/models/{backbone}-{sha256}.pth"
        yield _weights(
            f"torchvision_{name}",
            backbone,
            url,
            page,
            "BSD 3-Clause (code)",
            sha256=sha256,
            known_from="its name",
        )


WEIGHTS = {
    source.name: source
    for source in (*_moco(), *_dino(), *_other_self_supervised(), *_torchvision())
}
