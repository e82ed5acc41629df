"""What travels between laptop and host: one line of text, base64 of compressed JSON. Used on both sides."""

import binascii
import json
import zlib
from typing import Any

LIMIT = 64 * 1024 * 1024  # bytes that a line may unpack to


def pack(data: Any) -> str:
    return binascii.b2a_base64(zlib.compress(json.dumps(data).encode()), newline=False).decode()


def unpack(line: str | bytes) -> Any:
    """Raises ValueError for what `pack` did not make, or what is larger than LIMIT."""
    try:
        reader = zlib.decompressobj()
        text = reader.decompress(binascii.a2b_base64(line), LIMIT)
        if reader.unconsumed_tail or not reader.eof:
            raise ValueError("cut short, or too large")
        return json.loads(text)
    except (zlib.error, RecursionError) as error:
        raise ValueError(str(error)) from None


def printable(text: str) -> str:
    """Without control characters, line feeds and tabs excepted: strangers write into the logs that we show."""
    return "".join(each if each.isprintable() or each in "\n\t" else "?" for each in text)
