"""Values and template to one file."""

from collections.abc import Sequence
from pathlib import Path

from fss_bench.leaderboard import Row
from fss_bench.published import PublishedRow
from fss_bench.report.page.extremes import Pictures, no_picture
from fss_bench.report.page.payload import page_data

HERE = Path(__file__).parent


def to_html(
    rows: Sequence[Row],
    published: Sequence[PublishedRow] = (),
    pictures: Pictures | None = None,
) -> str:
    """The page; the same rows and pictures give the same bytes.

    Args:
        rows: of the leaderboard.
        published: what papers report, shown apart from what was measured.
        pictures: of episodes; by default there are none.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    parts = {name: (HERE / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    data = page_data(rows, published, pictures or no_picture)
    return environment.get_template("page.html.jinja").render(**data, **parts)
