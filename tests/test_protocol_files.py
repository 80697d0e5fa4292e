"""Protocols of one's own as TOML files."""

from pathlib import Path

import pytest

from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.protocol_files import read_protocol
from fss_bench.protocols import LARGEST_SEED, PROTOCOLS, EvaluationProtocol, get_protocol


@pytest.fixture
def write(tmp_path: Path) -> "Writer":
    return Writer(tmp_path / "mine.toml")


class Writer:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, text: str) -> Path:
        self.file.write_text(text, encoding="utf-8")
        return self.file


def test_a_file_without_a_name_is_its_base_with_changes(write: Writer) -> None:
    found = read_protocol(write('base = "hsnet"\niou_at = "original"\n'))
    assert found == PROTOCOLS["hsnet"].replace_rules({"iou_at": "original"})
    assert found.label == "hsnet+iou_at=original"
    assert get_protocol("hsnet+iou_at=original") == found


def test_a_name_shows_in_the_label(write: Writer) -> None:
    found = read_protocol(write('name = "lab-7"\nbase = "standard"\nquery_ignore = "background"'))
    assert found.name == "lab-7"
    assert found.label == "lab-7+query_ignore=background"
    assert found.rules == PROTOCOLS["standard"].replace_rules({"query_ignore": "background"}).rules


def test_a_label_too_long_for_a_folder_is_a_digest(write: Writer) -> None:
    found = read_protocol(write('name = "lab"\nbase = "panet"\nepisodes = 7\nseeds = [1, 2]'))
    assert found.seeds == (1, 2)
    assert found.runs == 2
    assert len(found.label) < 120
    assert found.label.startswith(f"lab+{len(found.changes)}-rules-")
    other = read_protocol(write('name = "lab"\nbase = "panet"\nepisodes = 8\nseeds = [1, 2]'))
    assert other.label != found.label


def test_the_base_is_standard_where_none_is_given(write: Writer) -> None:
    assert read_protocol(write("episodes = 50")).label == "standard+episodes=50"


def test_get_protocol_reads_files(write: Writer, tmp_path: Path) -> None:
    assert get_protocol(str(write("episodes = 50"))).episodes == 50
    plus = Writer(tmp_path / "a+b.toml")("episodes = 60")
    assert get_protocol(str(plus)).episodes == 60


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "hsnett"', "unknown base of .*mine.toml 'hsnett': did you mean 'hsnet'"),
        ('iou_att = "input"', "mine.toml: unknown protocol rule 'iou_att': did you mean 'iou_at'"),
        ('iou_at = "in"', "mine.toml: rule iou_at='in': it must be one of original, input"),
        ("episodes = 1.5", "mine.toml: rule episodes=1.5: it must be a whole number"),
        ("seeds = [1, -2]", "mine.toml: rule seeds=-2: it must be 0 or more"),
        ('name = "hsnet"', "mine.toml: protocol name 'hsnet' is taken: choose another"),
        ('name = "a/b"', "mine.toml: protocol name 'a/b' must be 1 to 40 letters"),
        ('name = ".."', "name '..' must be"),
        ("name = 3", "name 3 must be 1 to 40 letters"),
        ("base = 3", "unknown base of .*mine.toml '3'"),
        ('base = ["hsnet"]', "unknown base of .*mine.toml"),
        ("[rules]\nepisodes = 3", "unknown protocol rule 'rules'"),
        ("episodes = ", "mine.toml cannot be read as TOML .*TOMLDecodeError"),
    ],
)
def test_a_wrong_file_is_one_line_with_the_cure(write: Writer, text: str, message: str) -> None:
    with pytest.raises(FssBenchError, match=message) as caught:
        read_protocol(write(text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(FssBenchError, match=r"none\.toml does not exist: write base"):
        read_protocol(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(FssBenchError, match=r"bytes\.toml cannot be read as TOML"):
        read_protocol(tmp_path / "bytes.toml")
    with pytest.raises(FssBenchError, match="cannot be read as TOML"):
        read_protocol(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("standard+iou_att=input", "unknown protocol rule 'iou_att': did you mean 'iou_at'"),
        ("standard+iou_at=a=b", "rule iou_at='a=b': it must be one of original, input"),
        ("standard+iou_at", "after the name come rules, as in standard.iou_at=input"),
        ("lab+9-rules-1a2b3c4d", "unknown protocol 'lab'"),
        ("standard+9-rules-1a2b3c4d", "a label with `-rules-` stands for many"),
        ("standard+seeds=3-3+runs=2", "seeds=3-3: a seed is there twice"),
        ("hsnet+seeds=99999999999", "rule seeds=99999999999: it must be 4294967295 or less"),
        ("standard+class_draw=lists", "class_draw=lists: it goes with order=hsnet"),
        ("standrad+iou_at=input", "unknown protocol 'standrad': did you mean 'standard'"),
        ("hsnet+class_draw=turns", "order hsnet has class_draw=lists: change that too"),
        ("bam+runs=9", r"rule runs=9: there are 5 seeds \(510-365-382-322-988\)"),
        ("standard+episodes=0", "rule episodes=0: it must be 1 or more"),
        ("standard+min_pixels_of=image", "it goes with class_draw=image"),
        ("standard+coco_episodes=0", "rule coco_episodes=0: it must be 1 or more"),
        ("standard+seeds=X1", "rule seeds='X1': it must be a whole number"),
        ("standard+seeds=a", "rule seeds='a': it must be a whole number"),
    ],
)
def test_a_name_with_rules_is_checked(text: str, message: str) -> None:
    with pytest.raises((FssBenchError, UnknownNameError), match=message):
        get_protocol(text)


def test_labels_are_names_that_get_protocol_takes() -> None:
    for name, protocol in PROTOCOLS.items():
        assert get_protocol(protocol.label) is PROTOCOLS[name]
        changed = protocol.replace_rules({"annotation": "points", "annotation_points": 3})
        assert get_protocol(changed.label) == changed
    bam = PROTOCOLS["bam"].replace_rules({"runs": 2, "coco_episodes": 9})
    assert get_protocol(bam.label) == bam
    assert not set(bam.label) & set(",/ ")


def test_forms_of_seeds_and_files_with_rules(write: Writer) -> None:
    standard = PROTOCOLS["standard"]
    for form in ("1-2", "1,2", "[1, 2]", (1, 2), [1, 2]):
        assert standard.replace_rules({"seeds": form}).seeds == (1, 2)
    assert standard.replace_rules({"seeds": 7}).seeds == (7,)
    assert get_protocol(f"hsnet+seeds={LARGEST_SEED}").seeds == (2**32 - 1,)
    assert get_protocol("hsnet+seeds=none").label == "hsnet+seeds=none"
    assert get_protocol("hsnet+seeds=").seeds == ()
    file = write('name = "mine"\niou_at = "input"')
    assert get_protocol(f"{file}+episodes=5").label == "mine+episodes=5+iou_at=input"


def test_the_name_of_a_protocol_of_ones_own_is_checked() -> None:
    with pytest.raises(FssBenchError, match=r"protocol name '../x' must be 1 to 40 letters"):
        get_protocol(EvaluationProtocol("../x"))
