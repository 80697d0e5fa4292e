"""The contract that every registered method keeps."""

import inspect

import pytest
import torch

from fss_bench import create_backbone, create_method
from fss_bench.contract import Check, checks
from fss_bench.contract.subject import TINY, episodes
from fss_bench.errors import UnknownNameError
from fss_bench.registry import methods

CHECKS = [check for name in methods.names() for check in checks(name)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.subject.name}-{check}")
def test_contract(check: Check) -> None:
    check()


@pytest.mark.parametrize("name", methods.names())
def test_forward_names_its_arguments(name: str) -> None:
    taken = list(inspect.signature(methods.get(name).forward).parameters)
    assert taken == ["self", "support_images", "support_masks", "query_images"]


@pytest.mark.parametrize("name", methods.names())
def test_no_way_is_preferred_for_its_place(name: str) -> None:
    method = create_method(name, create_backbone(TINY, weights="none"))
    support, masks, query = episodes(1, 2, 3)
    logits = method(support, masks, query)
    swapped = method(support.flip(1), masks.flip(1), query).argmax(dim=1)
    best = logits.topk(2, dim=1).values
    told_apart = best[:, 0] - best[:, 1] > 1e-6
    assert told_apart.float().mean() > 0.5  # a border without information may be tied
    renamed = torch.tensor([0, 2, 1])[swapped]
    assert torch.equal(logits.argmax(dim=1)[told_apart], renamed[told_apart])


def test_unknown_option_suggests_the_nearest() -> None:
    backbone = create_backbone(TINY, weights="none")
    with pytest.raises(UnknownNameError, match=r"'levl'.*did you mean 'level'"):
        create_method("panet", backbone, levl="c4")
