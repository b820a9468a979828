"""Archives for tests, written by Python's own modules."""

import io
import os
import tarfile
import zipfile

KINDS = ["stored.zip", "deflated.zip", "plain.tar"]


def pack(folder, archive, prefix=""):
    """Write an archive of all that is in a folder, by Python's own modules, in an order that is not sorted."""
    paths = sorted(os.path.join(above, name) for above, _, names in os.walk(folder) for name in names)[::-1]
    members = [(path, prefix + os.path.relpath(path, folder).replace(os.sep, "/")) for path in paths]
    if archive.endswith(".tar"):
        with tarfile.open(archive, "w") as tar:
            for path, name in members:
                tar.add(path, name)
        return archive
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED if "deflated" in archive else zipfile.ZIP_STORED) as file:
        for path, name in members:
            file.write(path, name)
    return archive


def write_zip(path, members, **options):
    with zipfile.ZipFile(str(path), "w", **options) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return str(path)


def write_tar(path, members):
    """members: {name: content, or the fields of a TarInfo}."""
    with tarfile.open(str(path), "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, dict):
                for field in content.items():
                    setattr(info, *field)
                content = b""
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return str(path)


def damage(path, change):
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(change(content))
    return path
