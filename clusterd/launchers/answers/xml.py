"""READS the XML of batch systems: small documents without a type of their own. A declaration of one is refused.

With it go entities, and what they are misused for (a few lines that expand to gigabytes); no qstat writes any.
"""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree as ET

from clusterd.launchers.answers.lenient import Unreadable

__all__ = ["parse"]

# Job names may hold control characters; Grid Engine writes them out as they are, and the whole document were lost.
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


def parse(document: str) -> ET.Element:
    """Return the root element.

    Raises:
        Unreadable: it is no XML, or declares a type.
    """
    if "<!DOCTYPE" in document or "<!ENTITY" in document:
        raise Unreadable("XML with a document type")
    # The declared encoding is that of the bytes, which were decoded before.
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", _FORBIDDEN.sub("\ufffd", document), count=1)
    try:
        return ET.fromstring(text)  # noqa: S314 - no entities, see above
    except (ET.ParseError, ValueError) as error:
        raise Unreadable(f"no valid XML: {error}") from None
