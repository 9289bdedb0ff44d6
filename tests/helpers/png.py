"""PNG files that no image library would write."""

import struct
import zlib


def png_bomb(width: int, height: int, *, rows: int) -> bytes:
    """Make a PNG file of black bits whose header states `width` x `height`, with data for `rows`.

    Zeros compress 1 to 1000: 20,000 x 20,000 pixels are 50 kB, and 1.6 GB once decoded to RGBA.
    """
    data = zlib.compress(bytes(rows * (1 + min(width, 20_000) // 8)))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return _png((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))


def gray_png(width: int, bits: int, rows: list[bytes], *, transparent: int) -> bytes:
    """Make a gray PNG file of rows of packed samples, one value of which is transparent."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    key = struct.pack(">H", transparent)
    return _png((b"IHDR", header), (b"tRNS", key), (b"IDAT", data), (b"IEND", b""))


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
