"""Few-shot segmentation benchmark whose numbers can be compared.

Names are imported when first used, so that listing and help need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fss_bench.checkpoint_loading import load_checkpoint
    from fss_bench.compute import Compute
    from fss_bench.dataset import create_dataset
    from fss_bench.evaluation import evaluate
    from fss_bench.method import Method, create_method
    from fss_bench.prediction import Prediction, Predictor, predict
    from fss_bench.protocols import EvaluationProtocol, get_protocol
    from fss_bench.results import ResultStore, Run
    from fss_bench.setting import create_setting
    from fss_bench.timm_backbone import create_backbone

__version__ = "0.1.0"

_HOMES = {
    "Compute": "compute",
    "EvaluationProtocol": "protocols",
    "Method": "method",
    "Prediction": "prediction",
    "Predictor": "prediction",
    "ResultStore": "results",
    "Run": "results",
    "create_backbone": "timm_backbone",
    "create_dataset": "dataset",
    "create_method": "method",
    "create_setting": "setting",
    "evaluate": "evaluation",
    "get_protocol": "protocols",
    "load_checkpoint": "checkpoint_loading",
    "predict": "prediction",
}

__all__ = [
    "Compute",
    "EvaluationProtocol",
    "Method",
    "Prediction",
    "Predictor",
    "ResultStore",
    "Run",
    "create_backbone",
    "create_dataset",
    "create_method",
    "create_setting",
    "evaluate",
    "get_protocol",
    "load_checkpoint",
    "predict",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fss_bench' has no attribute {name!r}")
    return getattr(import_module(f"fss_bench.{_HOMES[name]}"), name)
