"""The version, for the package and for the user agent of its clients."""

from typing import Final

# Written out: to ask the installed package's metadata would cost every import some milliseconds.
__version__: Final = "0.1.0"
