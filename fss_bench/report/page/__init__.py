"""The leaderboard as one HTML file that works offline: no request, no library, no build."""

from fss_bench.report.page.render import to_html

__all__ = ["to_html"]
