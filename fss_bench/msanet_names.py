"""What the layouts of MSANet's files share: names of the head, and what a file was made for."""

from fss_bench.layout import State, Variant

SOURCE = "https://github.com/AIVResearch/MSANet"
HEAD = {
    "gam.gate.": "gate.",
    "kshot_rw.": "shot_weights.kshot_rw.",
    "init_merge.": "meta.init_merge.",
    "ASPP_meta.layer6_": "meta.aspp.branches.",
    "res1_meta.": "meta.res1.",
    "res2_meta.": "meta.res2.",
    "cls_meta.": "meta.cls.",
    "gram_merge.": "ensemble.gram_merge.",
    "cls_merge.": "ensemble.cls_merge.",
}


def variant_of(state: State, backbone: str) -> Variant | None:
    """What an MSANet file on a backbone was made for; None if it is no MSANet file.

    A file without weights of shots is for one shot, a file with them for as many as they have.
    """
    marks = ("gam.gate.0.weight", "hyper_final.0.weight", "learner_base.1.4.weight")
    if not all(mark in state for mark in marks):
        return None
    weights = state.get("kshot_rw.0.weight")
    shots = 1 if weights is None else int(weights.shape[1])
    options = {"shots": shots, "base_classes": len(state["learner_base.1.4.weight"]) - 1}
    return Variant(backbone, options, weights="base-finetuned", shots=(shots,))
