"""Notices: things a person should know that are no errors, each said once per process."""

import functools
import logging

LOGGER = logging.getLogger("surfaces")


@functools.cache
def notice(text: str) -> None:
    """Says `text` on the log, the first time only."""
    LOGGER.warning(text)
