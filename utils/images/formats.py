"""Parsing the headers of image files: format, completeness, size, and EXIF orientation."""

import re
import struct

READABLE = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "BMP": b"BM",
    "TIFF": b"II*\0",
}  # and those in kind_of

# (offset, signature, name) of other formats; the first match counts.
OTHERS = [
    (0, b"GIF8", "a GIF"),
    (0, b"II+\0", "a BigTIFF"),
    (0, b"MM\0+", "a BigTIFF"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"v/1\1", "an OpenEXR image"),
    (0, b"#?", "a Radiance HDR image"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive"),
    (257, b"ustar", "a tar archive"),
    (8, b"AVI ", "an AVI video"),
    (8, b"WAVE", "a WAV sound"),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (0, b"\0\5\x16\7", "an AppleDouble file (metadata of macOS)"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (128, b"DICM", "a DICOM image"),
    (0, b"version https://git-lfs", "a Git LFS pointer (git lfs pull fetches the image)"),
]
OTHERS += [(0, b"P%d%c" % (number, space), "a PNM image") for number in range(1, 7) for space in b" \n\t\r"]

BRANDS = [  # of files that begin with an "ftyp" box
    (rb"avif|avis", "an AVIF image"),
    (rb"hei[cxms]|hev[cx]|mif1|msf1", "a HEIC photo (convert it to JPEG)"),
    (rb"qt  ", "a QuickTime video"),
    (rb"", "an MP4 video"),
]
MARKUP = [(rb"<!doctype html|<html|<head|<body", "an HTML page"), (rb"(<\?xml.*)?<svg", "an SVG"), (rb"<\?xml", "XML")]

# In compressed data, FF is followed by 00 or by a restart marker; a marker may be preceded by any number of FF.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
SCAN, END, APP1 = 0xDA, 0xD9, 0xE1
EXIF_NAME = b"Exif\0\0"
EXIF_WITHIN = 2**18  # bytes from the start of a JPEG; only a colour profile can come before it
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of segments with the image size

PNG_CHUNK = struct.Struct(">I4s")  # length and name

INTEGERS = {1: "B", 3: "H", 4: "I"}  # of TIFF and EXIF
TAGS = WIDTH, HEIGHT, BITS, COMPRESSION, ORIENTATION, EXTRA_SAMPLES, SAMPLE_FORMAT = 256, 257, 258, 259, 274, 338, 339
COMPRESSIONS = {34712: "JPEG 2000", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP"}


def kind_of(content):
    """JPEG, PNG, BMP, TIFF or WebP; None for any other format."""
    for kind, signature in READABLE.items():
        if content.startswith(signature):
            return kind
    if content.startswith(b"MM\0*"):
        return "TIFF"
    return "WebP" if content.startswith(b"RIFF") and content.startswith(b"WEBP", 8) else None


def describe_other(content):
    """The name of a format that is none of those."""
    if not content:
        return "an empty file"
    if content.startswith(b"ftyp", 4):
        return next(name for brand, name in BRANDS if re.search(brand, content[8:40]))
    for place, signature, name in OTHERS:
        if content.startswith(signature, place):
            return name
    start = content[:512]
    for pattern, name in MARKUP:
        if re.match(pattern, start.lstrip(b"\xef\xbb\xbf \t\r\n").lower(), re.DOTALL):
            return name
    if not content.strip(b"\0"):
        return "a file of zeros"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return "a text file"
    return f"a file of unknown format, starting with {' '.join(f'{byte:02x}' for byte in content[:8])}"


def jpeg_segments(content):
    """Yield (marker, start, end) of each segment of a JPEG; start is after its length.

    Skips the compressed data after a scan header. END comes last, unless the JPEG is truncated. What follows END (a
    phone's video, a second image) is ignored, and so are thumbnails, which are inside segments.
    """
    place = 2
    while True:
        found = JPEG_MARKER.search(content, place)
        if not found:
            return
        place = found.end()
        marker = content[place - 1]
        if marker == END:
            yield marker, place, place
            return
        if marker not in (0x01, 0xD8):  # which have no length
            length = int.from_bytes(content[place : place + 2], "big")
            yield marker, place + 2, place + length
            place += length


def jpeg_frame(content):
    """(number of channels, width, height) of a JPEG; zeros if it has none."""
    for marker, start, _ in jpeg_segments(content):
        if marker in FRAMES:
            height, width, channels = struct.unpack_from(">HHB", content, start + 1)
            return channels, width, height
    return 0, 0, 0


def examine_jpeg(content):
    """(EXIF data or b"", why it must not be decoded or None); so do the next three functions."""
    # A shortcut for nearly all files; after a scan header, only the end marker can look like this.
    is_complete = content.endswith(b"\xff\xd9")
    if is_complete and content.find(EXIF_NAME, 0, EXIF_WITHIN) < 0:
        return b"", None
    exif = b""
    for marker, start, end in jpeg_segments(content):
        if marker == APP1 and not exif and content.startswith(EXIF_NAME, start):
            exif = content[start + len(EXIF_NAME) : end]
        if marker == END or (marker == SCAN and is_complete):
            return exif, None
    return exif, "a truncated JPEG"


def examine_png(content):
    exif, place = b"", 8
    while place + 8 <= len(content):
        length, name = PNG_CHUNK.unpack_from(content, place)
        if name == b"IEND":
            return exif, None
        if name == b"eXIf":
            exif = content[place + 8 : place + 8 + length]
        place += length + 12
    return exif, "a truncated PNG"


def examine_webp(content):
    flags = content[20] if content.startswith(b"VP8X", 12) and len(content) > 20 else 0
    if flags & 2:
        return b"", "an animated WebP"
    place = 12
    while flags & 8 and place + 8 <= len(content):
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        if content.startswith(b"EXIF", place):
            exif = content[place + 8 : place + 8 + length]
            return exif[6:] if exif.startswith(b"Exif\0\0") else exif, None
        place += 8 + length + length % 2
    return b"", None


def examine_tiff(content):
    """Variants that the versions of OpenCV decode differently, or not at all, must not be decoded."""
    tags, problem = tiff_tags(content), None
    bits, form = tags.get(BITS, 0), tags.get(SAMPLE_FORMAT, 1)
    if not tags:
        problem = "a truncated TIFF"
    elif form == 3:
        problem = f"a TIFF of {bits}-bit floating-point numbers"
    elif not bits:
        problem = "a TIFF without the number of bits per sample"
    elif bits not in (1, 8, 16):
        problem = f"a TIFF of {bits}-bit numbers"
    elif tags.get(COMPRESSION) in COMPRESSIONS:
        problem = f"a TIFF with {COMPRESSIONS[tags[COMPRESSION]]} compression"
    return content, problem


EXAMINE = {
    "JPEG": examine_jpeg,
    "PNG": examine_png,
    "WebP": examine_webp,
    "TIFF": examine_tiff,
    "BMP": lambda content: (b"", None),
}


def tiff_entries(content):
    """Yield (tag, offset of its value, its struct format) for TAGS in a TIFF's first directory."""
    order = "<" if content.startswith(b"II") else ">"
    try:
        (place,) = struct.unpack_from(order + "I", content, 4)
        (count,) = struct.unpack_from(order + "H", content, place)
        entries = struct.iter_unpack(order + "HHII", content[place + 2 : place + 2 + 12 * count])
        for entry, (tag, kind, number, where) in enumerate(entries):
            if tag in TAGS and kind in INTEGERS and number:
                is_inside = number * struct.calcsize(INTEGERS[kind]) <= 4
                yield tag, place + 10 + 12 * entry if is_inside else where, order + INTEGERS[kind]
    except struct.error:  # truncated, or not a TIFF
        return


def tiff_tags(content):
    """{tag: its first value} for TAGS in a TIFF's first directory; {} if it is truncated."""
    try:
        return {tag: struct.unpack_from(form, content, place)[0] for tag, place, form in tiff_entries(content)}
    except struct.error:
        return {}


def has_multiplied_alpha(content):
    """Whether the colours of a TIFF are stored multiplied by alpha."""
    return tiff_tags(content).get(EXTRA_SAMPLES) == 1


def orientation_of(exif):
    """1 to 8, as in table 6 of EXIF 2.3; 1, upright, by default."""
    found = tiff_tags(exif).get(ORIENTATION, 1)
    return found if 1 <= found <= 8 else 1


def declare_upright(content):
    """The content of a TIFF with its orientation set to 1."""
    content = bytearray(content)
    for tag, place, form in tiff_entries(bytes(content)):
        if tag == ORIENTATION:
            struct.pack_into(form, content, place, 1)
    return bytes(content)


def size_of(kind, content):
    """(width, height) in the header of a file; (0, 0) if there is none, or for WebP, which cannot be too large."""
    try:
        if kind == "PNG":
            return struct.unpack_from(">II", content, 16)
        if kind == "BMP":
            width, height = struct.unpack_from("<ii", content, 18)
            return abs(width), abs(height)
        if kind == "TIFF":
            tags = tiff_tags(content)
            return tags.get(WIDTH, 0), tags.get(HEIGHT, 0)
        if kind == "JPEG":
            return jpeg_frame(content)[1:]
    except struct.error:
        pass
    return 0, 0


def is_truncated(kind, content):
    """Whether a file that OpenCV cannot decode is shorter than its header says."""
    if kind == "JPEG":  # which can be truncated at the end of its thumbnail
        return SCAN not in [marker for marker, _, _ in jpeg_segments(content)]
    if kind == "WebP":
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    return kind == "BMP" and len(content) < int.from_bytes(content[2:6], "little")
