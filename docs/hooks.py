"""Keep private modules out of the pages: a reader cannot import from them, and they change without notice."""

import re
from typing import Any

from mkdocs.exceptions import PluginError

# The title of a type in a signature is the full name of its definition.
PRIVATE_TITLE = re.compile(r' title="aioidempotency(?:\.\w+)*?\._[\w.]*"')
MARKUP = re.compile(r"<[^>]+>")
PRIVATE_NAME = re.compile(r"aioidempotency(?:\.\w+)*?\._[\w.]*")
API = "reference/", "backends/"


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Remove the titles that name private modules; a heading or signature that names one fails the build."""
    shown = PRIVATE_TITLE.sub("", output)
    if page.url in API and (named := PRIVATE_NAME.search(MARKUP.sub("", shown))):
        raise PluginError(f"{page.url} names a private module: {named[0]}")
    return shown
