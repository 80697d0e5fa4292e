"""What weights files hold: read without running code, taken apart, and named by their sha256."""

import hashlib
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fss_bench.errors import WeightsError, one_line, printable
from fss_bench.old_pickles import StandIn, load_old_pickle

State = Mapping[str, Tensor]

METADATA = "fss_bench_weights"
"""Key in a safetensors file's metadata under which ours say what they are, as JSON."""
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
HARMLESS: list[Any] = [
    (StandIn, "argparse.Namespace"),
    (StandIn, "numpy.core.multiarray.scalar"),  # its name until NumPy 2
    (StandIn, "numpy._core.multiarray.scalar"),
    (StandIn, "numpy.dtype"),
]
"""What epochs, scores and arguments beside a state dict may be. They are dropped: a forged
`numpy.dtype` makes NumPy take bytes of the file for addresses."""
KNOWN_FILES = {
    "0676ba61": "torchvision resnet50 IMAGENET1K_V1",
    "19c8e357": "torchvision resnet50 IMAGENET1K_V1, file of 2017",
    "11ad3fa6": "torchvision resnet50 IMAGENET1K_V2",
    "63fe2227": "torchvision resnet101 IMAGENET1K_V1",
    "5d3b4d8f": "torchvision resnet101 IMAGENET1K_V1, file of 2017",
    "cd907fc2": "torchvision resnet101 IMAGENET1K_V2",
    "397923af": "torchvision vgg16 IMAGENET1K_V1",
    "6c64b313": "torchvision vgg16_bn IMAGENET1K_V1",
    "00b39a1b": "vgg16 of Caffe (BGR, 0..255)",
    "35c100f8": "timm resnet50.a1h_in1k",
    "36d3f2aa": "timm resnet101.a1h_in1k",
}
"""First eight digits of a file's sha256, which both hubs put into its name -> what it is."""
DEEPEST, MOST = 16, 50_000
"""Of a file's dictionaries: how deep they may be in one another, and how many items they have."""


class ContentError(WeightsError):
    """What a file holds cannot be taken apart: the end of a message that names the file."""


def read_content(path: Path, old_pickle: bool = False) -> Any:
    """What a safetensors or torch file holds; nothing in it can run code.

    Args:
        path: the file.
        old_pickle: read files that hold Python objects too, through `old_pickles`; the objects
            come back as empty stand-ins.

    Raises:
        WeightsError: truncated, or of another format.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        _check_stored(path)
        if old_pickle:
            return plain_content(load_old_pickle(path))
        with torch.serialization.safe_globals(HARMLESS):
            return plain_content(torch.load(path, map_location="cpu", weights_only=True))
    except ContentError as error:
        raise WeightsError(f"{path} {error}") from error
    except Exception as error:
        raise WeightsError(f"{path} {_why_unreadable(path, error)}") from error


def _check_stored(path: Path) -> None:
    """Refuse a zip file that unpacks to more than it is; torch compresses nothing."""
    if not _is_zip(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(item.file_size for item in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ContentError(f"unpacks to {unpacked} bytes, more than it has: fetch it again")


def plain_content(content: Any) -> Any:
    """Dictionaries without attributes that a pickle gave them; tensors likewise.

    A pickle may set any attribute of an `OrderedDict`, its `items` too, and put a dictionary into
    itself.

    Raises:
        ContentError: dictionaries deeper than `DEEPEST` or with more items than `MOST`.
    """
    return _plain(content, 0, iter(range(MOST)))


def _plain(content: Any, depth: int, places: Iterator[int]) -> Any:
    if isinstance(content, Tensor):
        return Tensor.detach(content)
    if not isinstance(content, dict):
        return content
    if depth > DEEPEST:
        raise ContentError(f"holds dictionaries more than {DEEPEST} deep: save its state dict anew")
    kind = OrderedDict if isinstance(content, OrderedDict) else dict
    found = {}
    for key, value in kind.items(content):
        if next(places, None) is None:
            raise ContentError(f"holds more than {MOST:,} items: save its state dict anew")
        found[key] = _plain(value, depth + 1, places)
    return found


def read_state_dict(path: Path, old_pickle: bool = False) -> dict[str, Tensor]:
    """Tensors of a safetensors or torch checkpoint, unwrapped, without a `module.` prefix.

    Args:
        path: the file.
        old_pickle: see `read_content`.

    Raises:
        WeightsError: see `read_content`; or without tensors.
    """
    return unwrap_state(read_content(path, old_pickle), str(path))


def unwrap_state(content: Any, what: str) -> dict[str, Tensor]:
    """The state dict in what a checkpoint holds, without a `module.` prefix.

    Raises:
        WeightsError: there is none.
    """
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    values = list(content.values()) if isinstance(content, Mapping) else []
    if not values or not all(isinstance(v, Tensor) for v in values):
        raise WeightsError(f"{what} holds no state dict: it must map names to tensors")
    return plain_state(content, what)


def plain_state(content: Mapping[Any, Tensor], what: str) -> dict[str, Tensor]:
    """A state dict without what wrappers put before names.

    Raises:
        WeightsError: names are there twice then, or tensors are sparse.
    """
    state = {printable(_without_prefixes(str(key))): value for key, value in content.items()}
    if len(state) < len(content) or any(v.layout != torch.strided for v in state.values()):
        raise WeightsError(f"{what} holds names twice or sparse tensors: save its state dict anew")
    return state


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_file(path: Path) -> str | None:
    """What a published file of this sha256 is called, or None."""
    return known_digest(file_sha256(path))


def known_digest(sha256: str) -> str | None:
    """What a published file with this hex sha256 is called, or None."""
    return KNOWN_FILES.get(sha256[:8])


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty for other files.

    Raises:
        WeightsError: it cannot be read.
    """
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:
        raise WeightsError(f"{path} {_why_unreadable(path, error)}") from error


def state_sha256(module: nn.Module) -> str:
    """Hex sha256 over a module's sorted tensor names and their bytes."""
    return tensors_sha256(module.state_dict())


def tensors_sha256(state: State) -> str:
    """Hex sha256 over sorted tensor names and their bytes."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _without_prefixes(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name


def _why_unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({one_line(error)}): mend its permissions"
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "is empty: fetch it again"
    if head.lstrip()[:1] == b"<":
        return "is a web page, not a checkpoint: fetch it again"
    if head[:2] == b"PK" and not _is_zip(path):
        return "is truncated: fetch it again"
    if isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in str(error) or _modules(error)):
        return (
            "holds Python objects beside tensors, which are not loaded from untrusted files: take "
            f"the tensors out with fss-bench convert {path.name} OUT.safetensors --old-pickle"
        )
    return f"is not a readable checkpoint ({printable(one_line(error))[:120]}): fetch it again"


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # its end is there, and damaged
        return False


def _modules(error: Exception) -> bool:
    """Whether torch found a module pickled whole in a file of its format before 2020."""
    return "persistent_load of storage" in str(error)
