"""TensorFlow Lite metadata: how MediaPipe and ML Kit prepare an image, and what the classes are called.

A .tflite file is a FlatBuffer: tables that refer to one another by the distance in bytes, always forward. So the file
stays as it is, and a new root table goes in front of it, which refers to all that the old one did, and to one more
buffer: the metadata, a FlatBuffer itself. The class names follow at the end of the file, in a zip archive.

Numbers of fields and values are those in TensorFlow's schema.fbs and MediaPipe's metadata_schema.fbs. Both runtimes can
write it: TensorFlow 1.14 has no flatbuffers package, and the library for metadata, tflite-support, ends at Python 3.11.
"""

import struct
import zipfile
from collections import namedtuple

BUFFERS, METADATA = 4, 6  # fields of the root table, Model
UNKNOWN, RGB = 0, 1  # ColorSpaceType: there is none for BGR, and readers refuse UNKNOWN
IMAGE_PROPERTIES = 2  # the kind of ContentProperties
NORMALIZATION_OPTIONS, SCORE_THRESHOLDING_OPTIONS = 1, 3  # kinds of ProcessUnitOptions
TENSOR_AXIS_LABELS = 2  # the kind of AssociatedFile that names the entries of the output
LABELS = "labels.txt"
ALIGNMENT = 16  # of weights, in bytes

Existing = namedtuple("Existing", "position")  # something in the file that is there already


def add_metadata(path, about, mean, std, is_rgb):
    """Write metadata of an image classifier into a .tflite file.

    Args:
        path: of the file, without metadata so far.
        about: the JSON of its graph, as read_metadata returns it.
        mean, std: three numbers each: the network takes (level - mean) / std of levels from 0 to 255.
        is_rgb: whether its input channels are red, green, blue.
    """
    with open(path, "rb") as file:
        model = file.read()
    with open(path, "wb") as file:
        file.write(with_metadata(model, flatbuffer(describe(about, mean, std, is_rgb), b"M001")))
    labels = zipfile.ZipInfo(LABELS)  # with a fixed date, so that the same graph gives the same file
    labels.external_attr = 0o644 << 16  # permissions
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(labels, "".join(f"{name}\n" for name in about["classes"]))


def describe(about, mean, std, is_rgb):
    """The table ModelMetadata."""
    content = {0: IMAGE_PROPERTIES, 1: {0: RGB if is_rgb else UNKNOWN}}
    normalization = {0: NORMALIZATION_OPTIONS, 1: {0: list(map(float, mean)), 1: list(map(float, std))}}
    image = {0: about["input"]["name"], 3: content, 4: [normalization]}  # TensorMetadata
    threshold = {0: SCORE_THRESHOLDING_OPTIONS, 1: {0: -1e30}}  # logits can be negative: 0 would drop those classes
    output = {0: about["output"]["name"], 4: [threshold], 6: [{0: LABELS, 2: TENSOR_AXIS_LABELS}]}
    earliest_parser = "1.0.0"  # that knows these fields
    return {0: about.get("model_arch", "classifier"), 3: [{2: [image], 3: [output]}], 7: earliest_parser}


def with_metadata(model, metadata):
    """A .tflite file, as bytes, with metadata in front."""
    fields = read_table(model, follow(model, 0))
    root = {field: Existing(follow(model, place)) for field, place in fields.items()}
    root[0] = struct.unpack_from("<I", model, fields[0])[0]  # the version; all other fields are references
    buffers, entries = (read_vector(model, fields.get(field)) for field in (BUFFERS, METADATA))
    root[BUFFERS] = buffers + [{0: metadata}]
    root[METADATA] = entries + [{0: "TFLITE_METADATA", 1: len(buffers)}]
    return flatbuffer(root, b"TFL3", model)


def follow(data, place):
    """The position that a reference refers to."""
    return place + struct.unpack_from("<I", data, place)[0]


def read_table(data, position):
    """The fields of a table, {number: position}."""
    layout = position - struct.unpack_from("<i", data, position)[0]  # where each field is, 0: nowhere
    size = struct.unpack_from("<H", data, layout)[0]
    offsets = struct.unpack_from(f"<{size // 2 - 2}H", data, layout + 4)
    return {field: position + offset for field, offset in enumerate(offsets) if offset}


def read_vector(data, place):
    """The tables in a vector that a field refers to; none if there is no such field."""
    if place is None:
        return []
    start = follow(data, place)
    count = struct.unpack_from("<I", data, start)[0]
    return [Existing(follow(data, start + 4 * number)) for number in range(1, count + 1)]


def flatbuffer(root, identifier, rest=b""):
    """A FlatBuffer: a root table, and behind it `rest`, in which it refers to what is Existing."""
    data, references = bytearray(struct.pack("<I4s", 0, identifier)), []
    struct.pack_into("<I", data, 0, append(data, root, references))
    data.extend(bytes(-len(data) % ALIGNMENT))
    for place, position in references:
        struct.pack_into("<I", data, place, len(data) + position - place)
    return bytes(data) + rest


def append(data, value, references):
    """Append a value to a FlatBuffer, and behind it all that it refers to.

    Args:
        data: a bytearray.
        value: a table, {number of a field: value}; a vector, a list; text; or bytes. In tables and vectors, each value
            takes 4 bytes: a float, an int (also where it needs fewer: the lowest byte comes first), or a reference.
        references: the (place, position) of each reference to something Existing are appended to it.

    Returns:
        Its position.
    """
    data.extend(bytes(-len(data) % 4))
    start = len(data)
    if isinstance(value, (bytes, str)):
        content = value if isinstance(value, bytes) else value.encode("utf-8")
        data.extend(struct.pack("<I", len(content)) + content + b"\0")  # which ends a text; after bytes it does no harm
        return start
    head, items = len(value), value
    if isinstance(value, dict):
        layout, items = table_layout(list(value)), list(value.values())
        data.extend(layout)
        head, start = len(layout), start + len(layout)
    data.extend(struct.pack("<I", head) + bytes(4 * len(items)))
    for number, item in enumerate(items, 1):
        place = start + 4 * number
        if isinstance(item, Existing):
            references.append((place, item.position))
        elif isinstance(item, float):
            struct.pack_into("<f", data, place, item)
        else:
            target = item if isinstance(item, int) else append(data, item, references) - place
            struct.pack_into("<I", data, place, target)
    return start


def table_layout(fields):
    """What stands before a table: its own size, the table's, and where in the table each field is, or 0."""
    offsets = [4 + 4 * fields.index(field) if field in fields else 0 for field in range(max(fields) + 1)]
    sizes = 4 + 2 * len(offsets), 4 + 4 * len(fields)
    layout = struct.pack(f"<{2 + len(offsets)}H", *sizes, *offsets)
    return layout + bytes(-len(layout) % 4)
