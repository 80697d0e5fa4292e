"""The checks of the contract: a sound method passes all, and each fault is found by its check."""

import random
import unittest
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fss_bench import registry
from fss_bench.backbone import Backbone, Features
from fss_bench.contract import PROMISES, ContractError, NotApplicable, checks, results
from fss_bench.errors import FssBenchError
from fss_bench.method import Method
from fss_bench.ops import cosine_to_prototypes, masked_average_pool
from fss_bench.registry import Registry

Segment = Callable[["Sound", Features, Tensor, Features], Tensor]


class Sound(Method):
    """Class means with a scale that is learnt; `tamper` may spoil the logits."""

    def __init__(self, backbone: Backbone, input_size: int | None = None, power: int = 1) -> None:
        super().__init__(backbone, ["c4"], input_size)
        self.scale, self.power = nn.Parameter(torch.tensor(10.0)), power

    def segment(self, support: Features, support_masks: Tensor, query: Features) -> Tensor:
        on = masked_average_pool(support["c4"], self.chosen(support_masks)).mean(dim=2)
        off = masked_average_pool(support["c4"], support_masks == 0).mean(dim=(1, 2))
        means = torch.cat([off[:, None], on], dim=1)
        logits = self.scale * cosine_to_prototypes(query["c4"], means) ** self.power
        return self.tamper(logits, support["c4"], support_masks)

    def chosen(self, masks: Tensor) -> Tensor:
        return masks == 1

    def tamper(self, logits: Tensor, support: Tensor, masks: Tensor) -> Tensor:
        return logits


def write_to(masks: Tensor) -> Tensor:
    masks[..., 0, 0] = 0
    return masks == 1


def first_shot(support: Tensor) -> Tensor:
    return support[:, :, 0].mean(dim=(2, 3, 4))[:, 0, None, None, None]


def later_ways_win(logits: Tensor) -> Tensor:
    return logits + torch.arange(logits.shape[1])[None, :, None, None]


def roll_in_batch(logits: Tensor) -> Tensor:
    return logits.roll(1, dims=2) if len(logits) > 1 else logits


def divide_by_area(logits: Tensor, masks: Tensor) -> Tensor:
    area = (masks == 1).flatten(1).float().sum(dim=1)
    return logits + 0 * (area / area).view(-1, 1, 1, 1)


def refuse(reason: str) -> Any:
    raise ValueError(reason)


def count_call(self: Any, logits: Tensor) -> Tensor:
    self.calls = getattr(self, "calls", 0) + 1
    return logits


def remember(self: Any, logits: Tensor) -> Tensor:
    self._calls = getattr(self, "_calls", 0) + 1
    return logits + self._calls


def tampering(change: Callable[[Any, Tensor, Tensor, Tensor], Tensor]) -> dict[str, Any]:
    return {"tamper": change}


def constructing(change: Callable[[Any], None]) -> dict[str, Any]:
    def build(self: Any, backbone: Backbone, input_size: int | None = None) -> None:
        Sound.__init__(self, backbone, input_size)
        change(self)

    return {"__init__": build}


def needs_an_option(self: Any, backbone: Backbone, size: int) -> None:
    Sound.__init__(self, backbone)


def frozen_norm(self: Any) -> None:
    self.norm = nn.BatchNorm2d(3).requires_grad_(False)


FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "needs an option": ("defaults", {"__init__": needs_an_option}, "needs option 'size'"),
    "cannot be made": (
        "defaults",
        constructing(lambda self: refuse("no such file")),
        "ValueError: no such file",
    ),
    "starts elsewhere each time": (
        "same_start",
        constructing(
            lambda self: self.register_buffer(
                "noise", torch.tensor(random.SystemRandom().random(), dtype=torch.float64)
            )
        ),
        "noise differs from one to the next",
    ),
    "starts from NumPy": (
        "same_start",
        constructing(lambda self: np.random.rand()),
        "making it draws from NumPy's global generator",
    ),
    "wants the query's mask": (
        "forward_arguments",
        {"forward": lambda self, support, masks, query, query_mask: query},
        "it takes support, masks, query, query_mask",
    ),
    "no background": (
        "logits_shape",
        tampering(lambda self, logits, support, masks: logits[:, 1:]),
        "logits [1, 1, 4, 4] for 1 episodes of 1 ways",
    ),
    "labels": (
        "logits_shape",
        tampering(lambda self, logits, support, masks: logits.long()),
        "logits of type torch.int64",
    ),
    "a tuple": (
        "logits_shape",
        tampering(lambda self, logits, support, masks: (logits, support)),
        "forward returned a tuple",
    ),
    "one side alone": (
        "image_sides",
        tampering(
            lambda self, logits, support, masks: (
                logits if masks.shape[-1] == 64 else refuse("side must be 64")
            )
        ),
        "ValueError: side must be 64",
    ),
    "mixes episodes": (
        "batch_of_episodes",
        tampering(lambda self, logits, support, masks: logits - logits.mean(dim=0)),
        "off from each alone",
    ),
    "remembers": (
        "answers_repeat",
        tampering(lambda self, logits, support, masks: remember(self, logits)),
        "the second answer is 1.0e+00 off",
    ),
    "blind to masks": (
        "supports_matter",
        {
            "segment": lambda self, support, masks, query: Sound.segment(
                self, support, torch.ones_like(masks), query
            )
        },
        "other support_masks give the same answer",
    ),
    "prefers later ways": (
        "way_order",
        tampering(lambda self, logits, support, masks: later_ways_win(logits)),
        "logits are",
    ),
    "prefers the first shot": (
        "shot_order",
        tampering(lambda self, logits, support, masks: logits + first_shot(support)),
        "or set shots_commute = False",
    ),
    "lost at 255": (
        "ignored_pixels",
        tampering(lambda self, logits, support, masks: logits / (1 - (masks == 255).any().float())),
        "logits not finite for masks with 255",
    ),
    "divides by the area": (
        "one_sided_masks",
        tampering(lambda self, logits, support, masks: divide_by_area(logits, masks)),
        "logits not finite for masks of nothing but 0",
    ),
    "full precision alone": (
        "reduced_precision",
        tampering(
            lambda self, logits, support, masks: (
                refuse("fp32 only") if torch.is_autocast_enabled("cpu") else logits
            )
        ),
        "ValueError: fp32 only",
    ),
    "writes to masks": (
        "inputs_unchanged",
        {"chosen": lambda self, masks: write_to(masks)},
        "support_masks was written to",
    ),
    "draws from torch": (
        "no_global_randomness",
        tampering(lambda self, logits, support, masks: logits + 0 * torch.rand(1)),
        "the state of torch's global generator changes",
    ),
    "draws from NumPy": (
        "no_global_randomness",
        tampering(lambda self, logits, support, masks: logits + 0 * np.random.rand()),
        "the state of NumPy's global generator changes",
    ),
    "draws from Python": (
        "no_global_randomness",
        tampering(lambda self, logits, support, masks: logits + 0 * random.random()),
        "the state of Python's global generator changes",
    ),
    "counts calls": (
        "no_trace",
        tampering(lambda self, logits, support, masks: count_call(self, logits)),
        "attribute calls changes",
    ),
    "learns while it answers": (
        "no_trace",
        tampering(lambda self, logits, support, masks: (self.scale.data.add_(1), logits)[1]),
        "tensor scale changes",
    ),
    "hides what it learnt": (
        "state_dict",
        constructing(lambda self: setattr(self, "hidden", torch.rand(1)))
        | tampering(lambda self, logits, support, masks: logits * self.hidden),
        "register all that is learnt",
    ),
    "frozen norm": ("frozen_parts", constructing(frozen_norm), "norm is frozen"),
    "unused parameter": (
        "gradients",
        constructing(lambda self: setattr(self, "spare", nn.Parameter(torch.ones(2)))),
        "spare gets none",
    ),
    "constant loss": (
        "gradients",
        {"loss": lambda self, *episode: torch.ones(())},
        "the loss has no gradient",
    ),
    "endless loss": (
        "gradients",
        {"loss": lambda self, *episode: self.scale / 0},
        "the loss is inf",
    ),
    "counts depend on the batch": (
        "evaluation",
        tampering(lambda self, logits, support, masks: roll_in_batch(logits)),
        "counts differ",
    ),
}


@pytest.fixture
def own_methods(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(registry.methods, "_classes", {})
    return registry.methods


def test_a_sound_method_passes_everything(own_methods: Registry) -> None:
    own_methods.register("sound")(Sound)
    found = list(results(checks("sound", power=3)))
    assert [r.check for r in found] == [promise.__name__ for promise in PROMISES]
    assert {r.check: r.outcome for r in found if r.outcome != "passed"} == {}
    said = {r.check: r.found for r in found}
    assert said["defaults"] == "1 parameters beside the backbone's"
    assert said["logits_shape"] == "1 and 2 ways, 1 and 5 shots, maps of 4x4"
    assert said["ignored_pixels"] == "they count as neither class"
    assert said["gradients"] == "1 tensors, 1 numbers"
    assert said["evaluation"].startswith("5 episodes of shapes, ")
    assert all(r.promise.endswith(".") and len(r.promise) < 90 for r in found)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_by_its_check(own_methods: Registry, fault: str) -> None:
    name, changes, message = FAULTS[fault]
    own_methods.register("faulty")(type("Faulty", (Sound,), changes))
    (check,) = [check for check in checks("faulty") if str(check) == name]
    result = check.result()
    assert result.outcome == "failed"
    assert message in f"{result.found}: {result.cure}"
    with pytest.raises(Exception, match=r".") as raised:
        check()
    assert not isinstance(raised.value, unittest.SkipTest)


def test_every_promise_has_a_fault_that_breaks_it() -> None:
    broken = {name for name, _, _ in FAULTS.values()} | {"composition"}  # has a test of its own
    assert broken == {promise.__name__ for promise in PROMISES}


class Plain(nn.Module):
    """No `Method`: the products of query pixels with the mean colours of classes."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        on = ((masks == 1)[:, :, :, None] * support).mean(dim=(2, 4, 5))  # [B, N, 3]
        scores = torch.einsum("bchw,bnc->bnhw", query, on) * self.weight
        return torch.cat([0.1 - scores.amax(dim=1, keepdim=True), scores], dim=1)


def test_a_plain_module_is_checked_too(own_methods: Registry) -> None:
    own_methods.register("plain")(Plain)
    found = {r.check: r for r in results(checks("plain")) if r.check != "evaluation"}
    assert found["composition"].outcome == "not applicable"
    assert "images are encoded for every episode" in found["composition"].found
    assert found["shot_order"].found == "no difference"
    assert {r.outcome for name, r in found.items() if name != "composition"} == {"passed"}


def test_parts_that_are_not_the_forward_are_found(own_methods: Registry) -> None:
    parts = {
        "encode": lambda self, images: {"c": images},
        "segment": lambda self, support, masks, query: query["c"],
    }
    own_methods.register("torn")(type("Torn", (Plain,), parts))
    (check,) = [check for check in checks("torn") if str(check) == "composition"]
    with pytest.raises(ContractError, match="they differ: leave forward to the base class"):
        check()


def test_what_need_not_be_is_no_failure(own_methods: Registry) -> None:
    class Fitted(Sound):
        shots_commute = False

        def tamper(self, logits: Tensor, support: Tensor, masks: Tensor) -> Tensor:
            return logits + first_shot(support)

        def chosen(self, masks: Tensor) -> Tensor:
            return masks != 0

        def loss_terms(self, *episode: Tensor) -> dict[str, Tensor]:
            raise FssBenchError("learns at test time")

    own_methods.register("fitted")(Fitted)
    found = {str(check): check for check in checks("fitted")}
    assert found["shot_order"]().endswith(", as it says")
    assert found["ignored_pixels"]() == "they count as foreground"
    with pytest.raises(NotApplicable, match="learns at test time"):
        found["gradients"]()


def test_a_method_without_an_answer_yet_is_not_told_to_use_its_supports(
    own_methods: Registry,
) -> None:
    dull = tampering(lambda self, logits, support, masks: 0 * logits)
    own_methods.register("dull")(type("Dull", (Sound,), dull))
    (check,) = [check for check in checks("dull") if str(check) == "supports_matter"]
    assert check.result().outcome == "not applicable"


def test_a_method_that_cannot_be_made_is_said_once(own_methods: Registry) -> None:
    _, changes, _ = FAULTS["cannot be made"]
    own_methods.register("faulty")(type("Faulty", (Sound,), changes))
    (result,) = results(checks("faulty"))
    assert result.found == "ValueError: no such file"
    assert result.cure == f"mend test_contract.py, line {refuse.__code__.co_firstlineno + 1}"


def test_nothing_is_made_before_a_check_is_called() -> None:
    found = checks("no_such_method")
    assert len(found) == len(PROMISES)
    with pytest.raises(FssBenchError, match="unknown method 'no_such_method'"):
        found[0]()
