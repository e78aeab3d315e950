"""Pages and figures: one HTML file each, which needs no network and no other file."""

from equivox.report.page import Markup, page, save_all, tag

__all__ = ["Markup", "page", "save_all", "tag"]
