"""Old torch files that hold Python objects beside tensors, read without running anything in them.

A pickle runs what it names: any function, with any arguments. Here only what rebuilds tensors and
dictionaries is found by its name; every other name stands for an object that does nothing.
"""

import pickle
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import _utils


class Function:
    """A function to call and nothing else: a pickle could set a plain one's attributes."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, _: Any) -> None:
        raise pickle.UnpicklingError("it changes torch's functions")


ALLOWED = {
    "collections.OrderedDict": OrderedDict,
    "torch.Size": torch.Size,
    "torch._utils._rebuild_parameter": Function(_utils._rebuild_parameter),
    "torch._utils._rebuild_tensor": Function(_utils._rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": Function(_utils._rebuild_tensor_v2),
    **{str(kind): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)},
}
"""Name in a pickle -> what it stands for. torch itself finds storages by their names."""


class StandIn:
    """In place of an object that is not loaded: takes whatever a pickle gives it, and drops it."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def append(self, _: Any) -> None:
        """An item of a list."""

    def extend(self, _: Any) -> None:
        """Items of a list."""

    def add(self, _: Any) -> None:
        """An item of a set."""


class Unpickler(pickle.Unpickler):
    """An unpickler that finds nothing but `ALLOWED`."""

    def find_class(self, module: str, name: str, /) -> Any:
        """What a name stands for: one of `ALLOWED`, or a class of stand-ins."""
        full = f"{module}.{name}"
        return ALLOWED.get(full) or type(f"{full} (not loaded)", (StandIn,), {})

    def __setattr__(self, name: str, value: Any) -> None:
        """Take torch's way to find storages, for storages alone."""
        super().__setattr__(name, _storages_only(value) if name == "persistent_load" else value)


def _storages_only(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Modules pickled whole carry their source, which torch compares, and may write to a file."""

    def found(saved_id: Any) -> Any:
        if isinstance(saved_id, tuple) and saved_id[0] in ("module", b"module"):
            return saved_id[1]
        return find(saved_id)

    return found


class RestrictedPickle:
    """The parts of module `pickle` that `torch.load` uses."""

    Unpickler = Unpickler

    @staticmethod
    def load(file: IO[bytes], **options: Any) -> Any:
        """What a file holds from where it stands."""
        return Unpickler(file, **options).load()


def load_old_pickle(path: Path) -> Any:
    """What a torch file holds, of its zip format or the one before; objects are `StandIn`s.

    Raises:
        pickle.UnpicklingError: a tar file, the format before both, which unpacks into a folder; or
            a program of TorchScript, which torch would run.
        Exception: what torch and pickle raise for damaged files.
    """
    if tarfile.is_tarfile(path):
        raise pickle.UnpicklingError("torch's tar format of 2016 is not read")
    if _is_program(path):
        raise pickle.UnpicklingError("a program of TorchScript is not read: save its state dict")
    return torch.load(
        path,
        map_location="cpu",
        pickle_module=RestrictedPickle,
        weights_only=False,
        encoding="latin1",  # Python 2 wrote the oldest
    )


def _is_program(path: Path) -> bool:
    """Whether `torch.load` would take a file for TorchScript's; by torch's own zip reader."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return False
    return "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records()
