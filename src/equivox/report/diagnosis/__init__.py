"""The page of a diagnosis, and what a terminal shows of it."""

from equivox.report.diagnosis.document import CONTENTS, notebook, page, save, twin
from equivox.report.diagnosis.terminal import text

__all__ = ["CONTENTS", "notebook", "page", "save", "text", "twin"]
