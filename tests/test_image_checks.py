"""What is told of an image's files beside their pixels, however damaged they are."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from fss_bench.image_checks import leads_out, picture_remarks


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of odd metadata
def test_damaged_pages_are_passed_over(tmp_path: Path) -> None:
    """Pillow raises errors of many kinds when it counts frames."""
    stream, file = BytesIO(), tmp_path / "a.tif"
    page = Image.new("RGB", (2, 2))
    page.save(stream, "TIFF", save_all=True, append_images=[page, page])
    content = stream.getvalue()
    told = set()
    for place in range(len(content)):
        for value in (0, 255):
            file.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            told |= {finding.text for finding in picture_remarks([file], None)}
    assert f"image {file} has 3 frames: the first is read" in told


@pytest.mark.parametrize(
    ("target", "out"),
    [
        ("root/images/b.png", False),
        ("root/other/b.png", False),
        ("outside/b.png", True),
        ("root2/b.png", True),
        ("outside/gone.png", False),
    ],
)
def test_links_that_lead_out(tmp_path: Path, target: str, out: bool) -> None:
    for folder in ("root/images", "root/other", "outside", "root2"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "b.png").touch()
    link = tmp_path / "root" / "images" / "a.png"
    link.symlink_to(tmp_path / target)
    assert leads_out(link, tmp_path / "root") is out
    assert not leads_out(tmp_path / "outside" / "b.png", tmp_path / "root")
    (tmp_path / "linked").symlink_to(tmp_path / "root")  # a root that is a link leads nowhere
    assert leads_out(tmp_path / "linked" / "images" / "a.png", tmp_path / "linked") is out
