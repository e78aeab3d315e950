"""Pages and figures: one HTML file each, which needs no network and no other file."""

from equivox.report.figures import Bar, Line, bar_chart, line_chart
from equivox.report.page import Markup, page, save, tag

__all__ = ["Bar", "Line", "Markup", "bar_chart", "line_chart", "page", "save", "tag"]
