"""Lists, class files, folds and links as they should not be."""

import gzip
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

from bad_data import READ, Attempt, Case
from bad_trees import FIRST, MAKERS, MASKS, NAMES, PHOTOGRAPHS, attempt

from fss_bench.published_orders import read_hsnet_lists

TEXT = "\n".join(NAMES)
Damage = Callable[[Path], object]


def _tree_case(
    kind: str, fault: str, promised: str, damage: Damage, told: str = "", show: bool = True
) -> Case:
    def prepare(root: Path) -> Attempt:
        tree = MAKERS[kind](root / "tree")
        damage(tree)
        return attempt(kind, tree, show=show)

    return Case(fault, kind, promised, prepare, told)


def _written(name: str, content: str | bytes) -> Damage:
    data = content.encode() if isinstance(content, str) else content
    return lambda tree: (tree / name).write_bytes(data)


LISTS: dict[str, tuple[str, str | bytes, str]] = {
    "list that is not UTF-8": (
        "is not UTF-8 in line 7",
        f"{TEXT}\ncaf".encode() + b"\xe9",
        "problem",
    ),
    "list in UTF-16": ("is not UTF-8", TEXT.encode("utf-16"), "problem"),
    "list that leads out of the folder": ("lead out of the folder", f"{TEXT}\n../../a", "problem"),
    "list of absolute paths": ("lead out of the folder", f"{TEXT}\n/etc/passwd", "problem"),
    "list with a NUL": ("cannot be names of files", f"{TEXT}\na\0b", "problem"),
    "list with a name of 300 letters": ("cannot be names", f"{TEXT}\n{'a' * 300}", "problem"),
    "list with an image that is nowhere": ("nowhere", f"{TEXT}\nnowhere", "problem"),
    "list with an image twice": (READ, f"{TEXT}\n{FIRST}", "note"),
    "list with blank lines": (READ, f"\n\n  {TEXT}\r\n \n", ""),
    "empty list": ("episodes of fold 0 need", "", ""),
}
LIST_OF = {"pascal5i": "ImageSets/Segmentation/val.txt", "folder": "test.txt"}


def _list_case(kind: str, fault: str) -> Case:
    promised, content, told = LISTS[fault]
    case = _tree_case(kind, fault, promised, _written(LIST_OF[kind], content), told)
    if fault != "empty list":
        return case

    def prepare(root: Path) -> Attempt:  # nothing is wrong with a file; there is nothing to draw
        tried = case.prepare(root)
        return Attempt(_refusing(tried), tried.command)

    return Case(fault, kind, promised, prepare)


def _refusing(tried: Attempt) -> Callable[[], object]:
    from fss_bench import create_dataset
    from fss_bench.setting import create_setting

    _, name, _, root = tried.verify[:4]
    rules = {"min_pixels": 1, "short_classes": "skip"}
    return lambda: create_setting(
        create_dataset(str(name), str(root)), "standard", fold=0, ways=1, shots=1, rules=rules
    )


def _link(tree: Path, name: str, target: Path | str) -> None:
    (tree / name).unlink()
    (tree / name).symlink_to(target)


def _linked_out(kind: str) -> Damage:
    def damage(tree: Path) -> None:
        outside = tree.parent / "outside"
        (tree / MASKS[kind]).rename(outside)
        (tree / MASKS[kind]).symlink_to(outside)

    return damage


def _linked_folder(name: str) -> Damage:
    def damage(tree: Path) -> None:
        (tree / name).rename(tree.parent / "elsewhere")
        (tree / name).symlink_to(tree.parent / "elsewhere")

    return damage


def _linked_root(tree: Path) -> None:
    tree.rename(tree.parent / "elsewhere")
    tree.symlink_to(tree.parent / "elsewhere")


def _in_place(kind: str) -> Damage:
    """A link to another file of the tree."""

    def damage(tree: Path) -> None:
        (tree / "there").write_bytes((tree / MASKS[kind]).read_bytes())
        _link(tree, MASKS[kind], tree / "there")

    return damage


def _foreign_name(tree: Path) -> None:
    source = tree / PHOTOGRAPHS["folder"]
    (source.parent / b"caf\xe9.png".decode("utf-8", "surrogateescape")).write_bytes(
        source.read_bytes()
    )


LINKS: dict[str, tuple[str, str, Damage, str]] = {
    "data root that is a link": ("folder", READ, _linked_root, ""),
    "image folder that is a link": ("folder", READ, _linked_folder("images"), ""),
    "image folder of VOC that is a link": ("pascal5i", READ, _linked_folder("JPEGImages"), ""),
    "class folder that is a link": ("fss1000", READ, _linked_folder("c2"), ""),
    "link to another file of the tree": ("folder", READ, _in_place("folder"), ""),
    "link out of the root": ("folder", READ, _linked_out("folder"), "note"),
    "link out of the root of VOC": ("pascal5i", READ, _linked_out("pascal5i"), "note"),
    "link to nothing": (
        "folder",
        "is missing",
        lambda tree: _link(tree, MASKS["folder"], "gone.png"),
        "problem",
    ),
    "link to itself": (
        "folder",
        "is missing",
        lambda tree: _link(tree, MASKS["folder"], (tree / MASKS["folder"]).name),
        "problem",
    ),
    "name that is not UTF-8": ("folder", "cannot be names of files", _foreign_name, "problem"),
    "folder in the place of a mask": (
        "folder",
        "is missing",
        lambda tree: ((tree / MASKS["folder"]).unlink(), (tree / MASKS["folder"]).mkdir()),
        "problem",
    ),
}

FSS: dict[str, tuple[str, str, str]] = {
    "class that leads out of the folder": ("test.txt", "lead out of the folder", "c2\n../c1"),
    "class without a folder": ("test.txt", "no folder with masks", "c2\nwolf"),
    "class in both lists": ("test.txt", "both list c1", "c1\nc2"),
    "list that is not UTF-8": ("trn.txt", "is not UTF-8", "c1\ncaf\udce9"),
}

OWN: dict[str, tuple[str, str, str | bytes]] = {
    "empty class list": ("classes.txt", "has 0 names", ""),
    "class twice": ("classes.txt", "different ones", "cat\ncat"),
    "class list that is not UTF-8": ("classes.txt", "is not UTF-8", b"caf\xe9\ndog"),
    "folds nested 100,000 deep": ("folds.toml", "is wrong", "folds = " + "[" * 100_000),
    "folds with an unknown class": ("folds.toml", "is wrong", 'folds = [["wolf"]]'),
    "folds that are cut": ("folds.toml", "is wrong", 'folds = [["cat"'),
    "folds that are not UTF-8": ("folds.toml", "is wrong", b'folds = [["caf\xe9"]]'),
}


def _opening_case(fault: str) -> Case:
    """What is told when a tree is opened, so that `data verify` tells it and nothing else."""
    name, promised, content = OWN[fault]

    def prepare(root: Path) -> Attempt:
        tree = MAKERS["folder"](root / "tree")
        _written(name, content)(tree)
        tried = attempt("folder", tree)
        return Attempt(tried.library, ("data", "verify", *tried.verify))

    return Case(fault, "folder", promised, prepare)


def _bomb() -> bytes:
    return gzip.compress(b'{"1": ["' + bytes(1 << 27) + b'"]}')


def _forged() -> bytes:
    return b"cos\nsystem\n(S'touch forged'\ntR."


PUBLISHED: dict[str, tuple[str, str, bytes]] = {
    "empty": ("pascal/val/fold0.txt", "is not the official list", b""),
    "of another list's lines": ("pascal/val/fold0.txt", "not the official", b"2007_000033__01\n"),
    "of another form": ("pascal/val/fold0.txt", "not of the form", b"<html>404</html>"),
    "that is not UTF-8": ("pascal/val/fold0.txt", "cannot be read", b"\xff\xfe__01"),
    "that is cut": ("coco_json/val_fold0.json.gz", "cannot be read", gzip.compress(b"{}")[:-9]),
    "of other JSON": ("coco_json/val_fold0.json.gz", "cannot be read", gzip.compress(b"[1]")),
    "that unpacks to 128 MB": ("coco_json/val_fold0.json.gz", "unpacks to more", _bomb()),
    "nested 100,000 deep": (
        "coco_json/val_fold0.json.gz",
        "cannot be read",
        gzip.compress(b"[" * 100_000),
    ),
    "pickle that runs a program": ("coco/val/fold0.pkl", "is not admitted", _forged()),
    "pickle of something else": ("coco/val/fold0.pkl", "cannot be read", pickle.dumps([1])),
}


def _published_case(fault: str) -> Case:
    name, promised, content = PUBLISHED[fault]

    def prepare(root: Path) -> Attempt:
        file = root / "lists" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        dataset = "pascal5i" if name.startswith("pascal") else "coco20i"
        tree = MAKERS[dataset](root / "tree")
        given = ("--dataset", dataset, "--data-root", tree, "--split-lists", root / "lists")
        command = ("episodes", *given, "--protocol", "hsnet", "--fold", 0, "-o", root / "e.jsonl")
        return Attempt(lambda: read_hsnet_lists(root / "lists", dataset, 0), command)

    return Case(f"published list {fault}", "split lists", promised, prepare)


def cases() -> Iterator[Case]:
    for kind in LIST_OF:
        yield from (_list_case(kind, fault) for fault in LISTS)
    for fault, (kind, promised, damage, told) in LINKS.items():
        yield _tree_case(kind, fault, promised, damage, told)
    for fault, (name, promised, text) in FSS.items():
        damage = _written(f"splits/{name}", text.encode("utf-8", "surrogateescape"))
        yield _tree_case("fss1000", fault, promised, damage, "problem")
    yield from (_opening_case(fault) for fault in OWN)
    yield from (_published_case(fault) for fault in PUBLISHED)
