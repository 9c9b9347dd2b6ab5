"""Pages of HTML that need no network: and cards: templates beside this file; what is put into HTML is escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def rendered(template: str, **given: Any) -> str:
    """The page ``template`` with what it is given."""
    loader = PackageLoader("paper_toolbox.engine.reports", "pages")
    escape = template.endswith(".html")
    pages = Environment(
        loader=loader, autoescape=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return pages.get_template(template).render(**given)
