"""Archives read as folders: data/cats.zip/train/cat/1.png is a file in data/cats.zip.

Nothing is unpacked, so that no name in an archive is ever a path to write to. Each archive is indexed once.
"""

import os
import posixpath
import re
import stat
import struct
import tarfile
import zipfile
import zlib

from src.errors import ChangedError, InputError, naming_memory, reason
from src.system import read_at

FORMATS = "a .zip, or a .tar without compression"
NAME = re.compile(r"\.(?:zip|tar)(?=[{}]|$)".format(re.escape(os.sep + (os.altsep or ""))), re.IGNORECASE)
FOLDER, FILE = "folder", "file"
MAC_METADATA = "__MACOSX"  # a folder that macOS adds to each zip
MS_DOS = 0  # of a zip made on Windows: some programs separate names by backslashes there
MOST_LEVELS = 100  # of folders
MOST_BYTES = 2**31  # of a file: more than any image that OpenCV reads
READ_AHEAD = 2**17  # bytes, when the headers in a tar are read: many small images at once, of large ones a part
BLOCK = 512  # bytes of a header of a tar; one of zeros ends it

# A file in an archive: where it, or in a zip its header, begins; its size there and in full; its CRC-32; whether it is
# compressed. Packed, since a million of them as tuples would take 200 MB.
MEMBER = struct.Struct("<QQQIB")
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a file in a zip: a signature, and the lengths of two fields that follow

opened = {}  # {path: Archive}


class Archive:
    """The files in a .zip or .tar. Raises InputError if it cannot be read, or is of another kind."""

    def __init__(self, path):
        self.path = path
        self._folders = {"": {}}  # {folder: {name: a packed MEMBER, or what else it is}}
        try:
            self._file = open(path, "rb", buffering=READ_AHEAD)  # noqa: SIM115
        except OSError as error:
            raise InputError(f"archive {path}: cannot be read ({reason(error)})") from error
        self._status = status_of(os.fstat(self._file.fileno()))
        self._is_zip = path.lower().endswith(".zip")
        try:
            self._index_zip() if self._is_zip else self._index_tar()
        except InputError:
            raise
        except Exception as error:  # zipfile and tarfile raise all kinds of errors
            kind = "zip" if self._is_zip else "tar without compression"
            found = f"one that cannot be read ({reason(error)})"
            raise InputError(f"archive {path}", found, f"a complete {kind}") from error

    def is_current(self):
        """Whether the archive at this path is still the one that was indexed."""
        try:
            return status_of(os.stat(self.path)) == self._status
        except OSError:  # it is gone
            return False

    def is_folder(self, name):
        return name in self._folders

    def names(self, folder):
        """Of what is in a folder."""
        return self._folders[folder]

    def kind(self, folder, name):
        """What it is: FOLDER, FILE, or in words what else."""
        found = self._folders[folder][name]
        return FILE if isinstance(found, bytes) else found

    def read(self, name):
        """The content of a file. Raises InputError if there is none, or it is corrupt."""
        folder, _, last = name.rpartition("/")
        member, what = self._folders.get(folder, {}).get(last), f"image {self.path}{os.sep}{name.replace('/', os.sep)}"
        if not isinstance(member, bytes):
            raise InputError(what, "no such file in the archive")
        position, stored, size, checksum, is_compressed = MEMBER.unpack(member)
        if status_of(os.fstat(self._file.fileno())) != self._status:
            raise changed(self)
        if size > MOST_BYTES:
            raise InputError(what, f"a file of {size:,} bytes", f"at most {MOST_BYTES:,}")
        try:
            with naming_memory(what):
                content = self._read(position + self._header_size(position), stored)
                if is_compressed:
                    content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
        except OSError as error:
            raise InputError(f"{what}: cannot be read ({reason(error)})") from error
        except (zlib.error, ValueError) as error:
            raise InputError(what, f"a corrupt file in the archive ({error})", "a complete archive") from error
        if len(content) != size or self._is_zip and zlib.crc32(content) != checksum:
            raise InputError(what, "a corrupt file in the archive (its checksum is another)", "a complete archive")
        return content

    def _read(self, position, size):
        content = read_at(self._file.fileno(), size, position)
        if len(content) < size:
            raise ValueError("the archive ends before it")
        return content

    def _header_size(self, position):
        """The bytes before a file's content."""
        if not self._is_zip:
            return 0
        signature, name, extra = LOCAL_HEADER.unpack(self._read(position, LOCAL_HEADER.size))
        if signature != zipfile.stringFileHeader:
            raise ValueError("its header is missing")
        return LOCAL_HEADER.size + name + extra

    def _index_zip(self):
        size = self._status[0]
        for info in zipfile.ZipFile(self._file).infolist():
            name = info.filename.replace("\\", "/") if info.create_system == MS_DOS else info.filename
            if name.endswith("/"):
                self._add(name, FOLDER)
            elif stat.S_ISLNK(info.external_attr >> 16):
                self._add(name, "link")
            elif info.flag_bits & 1:
                raise InputError(f"archive {self.path}", f"{name}, which is encrypted", FORMATS)
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                found = f"{name}, compressed by method {info.compress_type}"
                raise InputError(f"archive {self.path}", found, "files that are stored or deflated (methods 0 and 8)")
            elif info.header_offset + info.compress_size > size:
                raise ValueError("it is truncated")
            else:
                is_compressed = info.compress_type == zipfile.ZIP_DEFLATED
                member = info.header_offset, info.compress_size, info.file_size, info.CRC, is_compressed
                self._add(name, MEMBER.pack(*member))

    def _index_tar(self):
        tar = tarfile.TarFile(fileobj=self._file, encoding="utf-8", errors="surrogateescape")
        before = -1
        for info in iter(tar.next, None):
            tar.members = []  # or it would keep them all
            if tar.offset <= before:
                raise ValueError("a file in it has a negative size")
            before = tar.offset
            if info.isdir():
                self._add(info.name, FOLDER)
            elif info.islnk():  # to the same content, earlier in the archive
                folder, _, last = as_relative(info.linkname).rpartition("/")
                member = self._folders.get(folder, {}).get(last)
                self._add(info.name, member if isinstance(member, bytes) else "link")
            elif info.issym():
                self._add(info.name, "link")
            elif info.issparse():
                self._add(info.name, "sparse file")
            elif not info.isreg():
                self._add(info.name, "device or pipe")
            else:
                self._add(info.name, MEMBER.pack(info.offset_data, info.size, info.size, 0, False))
        if read_at(self._file.fileno(), BLOCK, tar.offset) != bytes(BLOCK):
            raise ValueError("it is truncated or corrupt")

    def _add(self, name, kind):
        name = as_relative(name)
        parts = name.split("/")
        if parts[0] in ("", MAC_METADATA):
            return
        if ".." in parts or "\0" in name or len(parts) > MOST_LEVELS:
            self._folders[""]["/" + name] = "path out of the archive"  # no name has a /
            return
        if kind == FOLDER:
            self._folder(name)
        elif name not in self._folders:  # or it could not be unpacked beside the folder
            folder, _, last = name.rpartition("/")
            self._folder(folder)[last] = kind

    def _folder(self, name):
        """The dict of a folder; adds it, and those that it is in."""
        found = self._folders.setdefault(name, {})
        while name:
            name, _, last = name.rpartition("/")
            above = self._folders.setdefault(name, {})
            if above.get(last) == FOLDER:
                break
            above[last] = FOLDER
        return found


def as_relative(name):
    """A name in an archive without ./ and // and a / at the start."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def status_of(status):
    """What differs when a file has changed."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def locate(path):
    """(Archive, name in it) of a path in an archive, with the name "" for the archive itself; None for other paths."""
    for match in NAME.finditer(path):
        prefix = path[: match.end()]
        if prefix in opened or os.path.isfile(prefix):
            if prefix not in opened:
                opened[prefix] = Archive(prefix)
            return opened[prefix], as_relative(posixpath.normpath(path[match.end() :].replace(os.sep, "/")))
    return None


def archive_of(path):
    """The Archive that a path leads into; None for other paths."""
    found = locate(path)
    return found[0] if found else None


def changed(archive):
    """The ChangedError to raise."""
    return ChangedError(f"archive {archive.path}", "one that was changed since it was indexed", "the same")


def locate_current(path):
    """As locate; an archive that has changed is indexed again."""
    found = locate(path)
    if found and not found[0].is_current():
        del opened[found[0].path]
        found = locate(path)
    return found
