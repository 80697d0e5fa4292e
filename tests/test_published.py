"""Published rows: what the reader refuses, how they are grouped, ranked and shown."""

import csv
import io
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fss_bench.cli import main
from fss_bench.errors import FssBenchError
from fss_bench.leaderboard import COLUMNS, build_rows
from fss_bench.protocols import PROTOCOLS, get_protocol
from fss_bench.published import (
    CERTAINTIES,
    FILE_COLUMNS,
    PublishedRow,
    load_published,
    ranked,
)
from fss_bench.report.console import print_tables, tables_as_text
from fss_bench.report.table import to_csv
from fss_bench.results import ResultStore, Run

MakeRun = Callable[..., Run]
COMMITTED = Path(__file__).parents[1] / "results" / "published.csv"
LINE = {
    "method": "PANet",
    "backbone": "VGG16",
    "dataset": "pascal5i",
    "protocol": "panet",
    "ways": "1",
    "shots": "1",
    "fold0": "42.3",
    "fold1": "58.0",
    "fold2": "51.1",
    "fold3": "41.2",
    "miou": "48.1",
    "fb_iou": "66.5",
    "certainty": "verified",
    "folds_certainty": "unverified",
    "fb_certainty": "secondary",
    "paper": "PANet, ICCV 2019",
    "where": "the paper",
    "notes": "",
}
MEAN_ONLY = dict.fromkeys("fold0 fold1 fold2 fold3 fb_iou folds_certainty fb_certainty".split(), "")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a CSV of LINE with changes, a line each."""

    def make(*changes: dict[str, str], columns: Sequence[str] = FILE_COLUMNS) -> Path:
        file = tmp_path / "published.csv"
        with file.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines)
            writer.writerow(columns)
            writer.writerows([{**LINE, **c}.get(name, "") for name in columns] for c in changes)
        return file

    return make


Write = Callable[..., Path]


def row(method: str = "a", miou: float | None = 50.0, **changes: Any) -> PublishedRow:
    """A row with a mean alone."""
    certainty = "" if miou is None else "verified"
    values: dict[str, Any] = {
        **{"method": method, "miou": miou, "certainty": certainty, "backbone": "VGG16"},
        **{"dataset": "pascal5i", "protocol": "hsnet", "ways": 1, "shots": 1},
        **{"folds": (None,) * 4, "folds_certainty": "", "fb_iou": None, "fb_certainty": ""},
        **{"paper": "p", "where": "w"},
    }
    return PublishedRow(**{**values, **changes})


def test_a_line_is_read_as_it_stands(write: Write) -> None:
    (read,) = load_published(write({}))
    assert read == PublishedRow(
        method="PANet",
        backbone="VGG16",
        dataset="pascal5i",
        protocol="panet",
        ways=1,
        shots=1,
        folds=(42.3, 58.0, 51.1, 41.2),
        miou=48.1,
        fb_iou=66.5,
        certainty="verified",
        folds_certainty="unverified",
        fb_certainty="secondary",
        paper="PANet, ICCV 2019",
        where="the paper",
    )
    assert read.rank == 1


def test_values_may_lack(write: Write) -> None:
    (read,) = load_published(write({**MEAN_ONLY}))
    assert (read.folds, read.fb_iou) == ((None,) * 4, None)
    one = {"fold0": "", "fold1": "", "fold3": "", "miou": "", "certainty": ""}
    (read,) = load_published(write(one))
    assert (read.folds, read.miou) == ((None, None, 51.1, None), None)
    assert load_published(write()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"miou": "48,1"}, "miou '48,1': it must be a number of percent from 0 to 100"),
        ({"fold2": "abc"}, "fold2 'abc': it must be a number of percent from 0 to 100"),
        ({"fb_iou": "100.1"}, "fb_iou '100.1': it must be a number of percent from 0 to 100"),
        ({"miou": "-1"}, "miou '-1': it must be a number of percent from 0 to 100"),
        ({"miou": "nan"}, "miou 'nan': it must be a number of percent from 0 to 100"),
        ({"miou": "1e1"}, "miou '1e1': it must be a number of percent from 0 to 100"),
        ({"ways": "0"}, "ways '0': it must be a whole number from 1 to 9999"),
        ({"shots": "1.5"}, "shots '1.5': it must be a whole number from 1 to 9999"),
        ({"shots": ""}, "shots is empty: fill it in"),
        ({"method": " "}, "method is empty: fill it in"),
        ({"where": ""}, "where is empty: fill it in"),
        (
            {"certainty": "sure"},
            "certainty 'sure': it must be one of verified, secondary, unverified",
        ),
        (
            {"folds_certainty": "Verified"},
            "folds_certainty 'Verified': it must be one of verified, secondary, unverified",
        ),
        (
            {"certainty": ""},
            "miou 48.1 without certainty: give one of verified, secondary, unverified",
        ),
        (
            {"folds_certainty": "", "fold1": ""},
            "fold0 42.3, fold2 51.1, fold3 41.2 without folds_certainty: give one of verified, "
            "secondary, unverified",
        ),
        ({"fb_iou": ""}, "fb_certainty secondary without fb_iou: leave it empty"),
        ({"miou": ""}, "certainty verified without miou: leave it empty"),
        (
            {**MEAN_ONLY, "miou": "", "certainty": ""},
            "it has no number: give miou, a fold or fb_iou, or delete the line",
        ),
    ],
)
def test_the_reader_refuses_with_file_line_value_and_cure(
    write: Write, changes: dict[str, str], message: str
) -> None:
    file = write({}, {}, changes, {})
    with pytest.raises(FssBenchError) as caught:
        load_published(file)
    assert str(caught.value) == f"{file}, line 4: {message}"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (FILE_COLUMNS[1:], "no column method: add it"),
        ((), "no column method, backbone, dataset"),
        ([*FILE_COLUMNS, "score"], "column 'score': the columns are method,backbone"),
        ([*FILE_COLUMNS, "miou"], "column given twice: the columns are method,backbone"),
    ],
)
def test_the_columns_must_be_these(write: Write, columns: Sequence[str], message: str) -> None:
    file = write({}, columns=columns)
    with pytest.raises(FssBenchError) as caught:
        load_published(file)
    assert str(caught.value).startswith(f"{file}, line 1: {message}")


@pytest.mark.parametrize("tail", [",extra", ""])
def test_a_line_with_other_cells_than_columns_is_refused(write: Write, tail: str) -> None:
    file = write({}, {})
    lines = file.read_text().splitlines()
    lines[2] = lines[2] + tail if tail else lines[2].rpartition(",")[0]
    file.write_text("\n".join(lines))
    with pytest.raises(FssBenchError, match="line 3: it has not 18 cells: quote cells with commas"):
        load_published(file)


def test_a_file_that_is_no_text_or_not_there_is_refused(write: Write, tmp_path: Path) -> None:
    file = write({})
    with pytest.raises(FssBenchError, match=r"cannot read .*none\.csv \(FileNotFoundError.*give a"):
        load_published(tmp_path / "none.csv")
    broken = file.read_bytes() + b'a,"b" c\n'
    file.write_bytes(broken)
    with pytest.raises(FssBenchError, match=r"published\.csv, line 3: .*: mend the quotes"):
        load_published(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FssBenchError, match=r"cannot read .* \(UnicodeDecodeError"):
        load_published(file)


def test_cells_stand_in_the_order_of_the_leaderboard(write: Write) -> None:
    (read,) = load_published(write({}))
    assert to_csv([read]).splitlines()[0] == ",".join(COLUMNS)
    (cells,) = csv.DictReader(io.StringIO(to_csv([read])))
    known = {name: value for name, value in cells.items() if value}
    assert known == {
        "rank": "1",
        "method": "PANet",
        "backbone": "VGG16",
        "dataset": "pascal5i",
        "protocol": "panet",
        "ways": "1",
        "shots": "1",
        "fold0": "42.30",
        "fold1": "58.00",
        "fold2": "51.10",
        "fold3": "41.20",
        "miou": "48.10",
        "fb_iou": "66.50",
        "source": "published",
    }


UNSURE = {"certainty": "unverified"}


def test_what_is_unverified_is_last_and_has_no_rank() -> None:
    folds = {"folds": (None, 1.0, None, None), "folds_certainty": "unverified"}
    rows = [
        row("memory", 99.0, **UNSURE),
        row("best", 70.0, **folds),
        row("sure folds", None, **{**folds, "folds_certainty": "secondary"}),
        row("folds from memory", None, **folds),
        row("worst", 10.0, certainty="secondary"),
        row("older memory", 3.0, **UNSURE),
    ]
    expected = [
        ("best", 1),
        ("worst", 2),
        ("sure folds", None),
        ("memory", None),
        ("older memory", None),
        ("folds from memory", None),
    ]
    for seed in range(5):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert [(r.method, r.rank) for r in ranked(shuffled)] == expected


def test_of_several_sources_the_surest_has_the_rank() -> None:
    rows = [
        row("gf", 72.6, certainty="secondary", where="a table"),
        row("gf", 72.3, certainty="verified", where="its log"),
        row("other", 72.5, certainty="secondary"),
        row("gf", 71.0, certainty="verified", where="its README"),
        row("gf", 60.0, certainty="secondary", backbone="another"),
    ]
    found = [(r.method, r.miou, r.rank) for r in ranked(rows)]
    assert found == [
        ("gf", 72.6, None),
        ("other", 72.5, 1),
        ("gf", 72.3, 2),
        ("gf", 71.0, None),
        ("gf", 60.0, 3),
    ]


@pytest.mark.parametrize(
    "other", [{"dataset": "coco20i"}, {"protocol": "bam"}, {"ways": 2}, {"shots": 5}]
)
def test_ranks_restart_with_dataset_protocol_ways_and_shots(other: dict[str, Any]) -> None:
    rows = ranked([row("a", 40.0), row("b", 50.0, **other), row("c", 45.0), row("d", 1.0, **other)])
    assert {(r.method, r.rank) for r in rows} == {("c", 1), ("a", 2), ("b", 1), ("d", 2)}
    assert [r.group for r in rows] == sorted(r.group for r in rows)


def test_measured_and_published_rows_are_never_ranked_together(make_run: MakeRun) -> None:
    dataset = {"name": "pascal5i", "folds": 4}
    measured = build_rows(
        [make_run(0.3, protocol=PROTOCOLS["hsnet"], dataset=dataset, fold=f) for f in range(4)]
    )
    reported = ranked([row("HSNet", 60.0)])
    cells = list(csv.DictReader(io.StringIO(to_csv([*measured, *reported]))))
    assert [(c["rank"], c["source"]) for c in cells] == [("1", "measured"), ("1", "published")]
    text = tables_as_text(measured, reported)
    first, second = text.split("\n\n")
    assert "panet" in first
    assert "published" not in first
    assert "HSNet" in second
    assert second.splitlines()[0].rstrip() == "pascal5i, 1-way 1-shot, protocol hsnet"
    assert second.splitlines()[1].rstrip() == "published, episode lists unknown"
    assert tables_as_text(measured) == first.rstrip("\n") + "\n"


def styled(rows: Sequence[PublishedRow]) -> list[str]:
    """Lines as a terminal of 80 columns gets them."""
    file = io.StringIO()
    print_tables([], Console(file=file, width=80, force_terminal=True, no_color=True), rows)
    return file.getvalue().splitlines()


def test_unverified_rows_are_dim_on_a_terminal() -> None:
    lines = styled(ranked([row("sure", 40.0), row("memory", 61.5, **UNSURE)]))
    assert [line.startswith("\x1b[2m") for line in lines if "VGG16" in line] == [False, True]
    (sure,) = (line for line in lines if "40.00" in line)
    assert "\x1b" not in sure
    (memory,) = (line for line in lines if "61.50" in line)
    assert "memory" in memory
    assert "unverified" in memory


def test_unverified_cells_of_a_surer_row_are_dim() -> None:
    folds = (42.3, 58.0, 51.1, None)
    lines = styled(
        ranked(
            [row(folds=folds, folds_certainty="unverified", fb_iou=66.5, fb_certainty="verified")]
        )
    )
    (line,) = (line for line in lines if "50.00" in line)
    for value in ("42.30", "58.00", "51.10"):
        assert f"\x1b[2m{value}\x1b[0m" in line
    assert line.count("\x1b[2m") == 3 + 1  # the fold that is not there is an empty dim cell
    assert "1 a" in line
    assert " 50.00  66.50 mean, FB-IoU" in line.rpartition("\x1b[0m")[2]
    text = " ".join(" ".join(line.split()) for line in lines)
    assert "folds unverified" in text.replace("\x1b[2m", "")


def test_brackets_are_text_not_markup() -> None:
    text = tables_as_text([], [row("m[/x]", where="[b]page 5[/b]")])
    assert "m[/x]" in text
    assert "[b]page 5[/b]" in text


def test_columns_that_no_row_fills_are_left_out() -> None:
    text = tables_as_text([], [row()])
    assert "fold0" not in text
    assert "FB-IoU" not in text
    assert "FB-IoU" in tables_as_text([], [row(fb_iou=60.0, fb_certainty="verified")])


def test_the_committed_tables_fit_80_columns_and_cut_nothing() -> None:
    rows = load_published(COMMITTED)
    text = tables_as_text([], rows)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    words = text.split()
    for value in {cell for r in rows for cell in r.cells()[8:16] if cell}:
        assert value in words


MEANS_THAT_DO_NOT_FIT = {
    # 47.1 56.6 53.8 48.3 have the mean 51.45; the DiffewS paper's table has 52.2
    ("DiffewS-n", "coco20i", 1): 52.2,
}
"""Means further than rounding from their folds: as they stand in their source."""


def test_committed_means_are_means_of_their_folds() -> None:
    whole = [r for r in load_published(COMMITTED) if None not in (r.miou, *r.folds)]
    apart = {
        (r.method, r.dataset, r.shots): r.miou
        for r in whole
        if abs(sum(f or 0.0 for f in r.folds) / 4 - (r.miou or 0.0)) > 0.15
    }
    assert len(whole) > 80
    assert apart == MEANS_THAT_DO_NOT_FIT


def test_committed_rows_are_consistent() -> None:
    rows = load_published(COMMITTED)
    assert len(rows) > 200
    assert {r.dataset for r in rows} == {"pascal5i", "coco20i", "fss1000"}
    for r in rows:
        memory = r.where == "from memory"
        given = {r.certainty, r.folds_certainty, r.fb_certainty} - {""}
        assert given <= set(CERTAINTIES)
        assert not memory or given == {"unverified"}, r
        assert (r.dataset != "fss1000") or (r.folds == (None,) * 4), r
        if "+" in r.protocol or r.protocol in PROTOCOLS:
            get_protocol(r.protocol)
        if r.dataset == "coco20i" and r.protocol in PROTOCOLS:
            assert get_protocol(r.protocol).fold_scheme in r.notes, r
    assert len({(*r.group, r.method, r.backbone, r.where, r.miou, r.folds) for r in rows}) == len(
        rows
    )


@pytest.mark.parametrize(
    ("method", "backbone", "protocol", "shots", "expected"),
    [  # read again from the shared document
        ("OSLSM", "VGG16", "oslsm", 1, (40.8, "secondary", "secondary", "unverified")),
        ("OSLSM", "VGG16", "oslsm", 5, (43.9, "unverified", "unverified", "unverified")),
        ("PANet", "VGG16", "panet", 5, (55.7, "verified", "unverified", "verified")),
        ("HSNet", "VGG16", "hsnet", 1, (59.7, "secondary", "unverified", "unverified")),
        ("HSNet", "ResNet50", "hsnet", 1, (64.0, "secondary", "secondary", "secondary")),
        ("DCAMA", "Swin-B 22k", "hsnet", 1, (69.3, "unverified", "unverified", "unverified")),
        ("BAM", "ResNet50", "bam", 1, (67.81, "secondary", "secondary", "secondary")),
        ("MSANet", "ResNet101", "bam", 5, (73.99, "verified", "", "")),
        ("SSP", "ResNet50", "mlc", 1, (61.7, "verified", "verified", "")),
    ],
)
def test_known_rows_of_the_committed_file(
    method: str, backbone: str, protocol: str, shots: int, expected: tuple[float, str, str, str]
) -> None:
    (found,) = (
        (r.miou, r.certainty, r.folds_certainty, r.fb_certainty)
        for r in load_published(COMMITTED)
        if (r.method, r.backbone, r.group) == (method, backbone, ("pascal5i", protocol, 1, shots))
        and r.miou is not None
    )
    assert found == expected


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Calls `fss-bench leaderboard`: status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fss-bench", "leaderboard", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, out, err

    return run


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(make_run: MakeRun, tmp_path: Path) -> ResultStore:
    """Two comparable methods on both folds."""
    store = ResultStore(tmp_path / "results")
    for method in ("panet", "hsnet"):
        for fold in (0, 1):
            store.write(make_run(method=method, fold=fold, run_id=f"{method}{fold}"))
    return store


def test_the_command_adds_published_rows_after_the_measured(
    call: Call, store: ResultStore, write: Write, tmp_path: Path
) -> None:
    plain = call("--results", store.root, "--format", "csv")[1]
    file = write({}, {"method": "other", "miou": "70", "certainty": "unverified"})
    arguments = ["--results", store.root, "--published", file]
    status, out, err = call(*arguments, "--format", "csv")
    assert (status, err) == (0, "")
    assert out.startswith(plain)
    added = list(csv.DictReader(io.StringIO(out)))[2:]
    assert [(r["rank"], r["method"], r["miou"]) for r in added] == [
        ("1", "PANet", "48.10"),
        ("", "other", "70.00"),
    ]
    status, out, _ = call(*arguments)
    assert (status, out.count("published, episode lists unknown")) == (0, 1)
    for form, target in (("csv", "board.csv"), ("table", "board.txt")):
        call(*arguments, "--format", form, "-o", tmp_path / target)
        assert "48.10" in (tmp_path / target).read_text()
    assert call("--results", store.root, "--format", "csv")[1] == plain


def test_published_rows_show_without_runs(call: Call, write: Write, tmp_path: Path) -> None:
    status, out, err = call("--results", tmp_path / "none", "--published", write({}))
    assert status == 0
    assert "48.10" in out
    assert err.startswith("note: no runs in ")
    status, out, err = call("--results", tmp_path / "none")
    assert (status, out) == (2, "")
    assert err.startswith("error: no runs in ")


def test_the_command_tells_a_bad_file_in_one_line(
    call: Call, store: ResultStore, write: Write
) -> None:
    file = write({"miou": "many"})
    status, out, err = call("--results", store.root, "--published", file)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {file}, line 2: miou 'many': ")
    assert err.count("\n") == 1


def test_together_ranks_rows_of_one_group(call: Call, store: ResultStore, write: Write) -> None:
    plain = call("--results", store.root)
    assert plain[0] == 0
    assert call("--results", store.root, "--together") == plain
    assert call("--results", store.root, "--together", "--published", write({}))[0] == 0


def test_together_names_what_differs(call: Call, store: ResultStore, make_run: MakeRun) -> None:
    rules = {"iou_at": "input", "mask_resize": "nearest-pil"}
    protocol = PROTOCOLS["standard"].replace_rules(rules)
    for fold in (0, 1):
        store.write(make_run(protocol=protocol, fold=fold, run_id=f"x{fold}", shots=5))
    status, out, err = call("--results", store.root, "--together")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(
        "error: rows do not compare: protocol standard and "
        "standard+iou_at=input+mask_resize=nearest-pil differ in "
        "mask_resize (nearest, nearest-pil), iou_at (original, input); shots (1, 5): "
    )


def test_together_names_the_fold_that_a_row_lacks(
    call: Call, store: ResultStore, make_run: MakeRun
) -> None:
    store.write(make_run(method="half", run_id="half"))
    status, _, err = call("--results", store.root, "--together")
    assert status == 2
    assert "rows do not compare: episodes fold1 (not recorded, 000000000000): " in err.replace(
        "(000000000000, not recorded)", "(not recorded, 000000000000)"
    )


def test_it_needs_no_torch() -> None:
    code = "import sys, fss_bench.published; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
