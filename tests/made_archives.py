"""Archives with members of any name and kind."""

import io
import stat
import tarfile
import zipfile

Entries = list[tuple[str, str]]
"""Names and kinds."""
KINDS = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "pipe": tarfile.FIFOTYPE,
    "sparse": tarfile.GNUTYPE_SPARSE,
}
CONTENT = b"content"


def tar(entries: Entries, mode: str = "w", link: str = "../../out") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as made:  # type: ignore[call-overload]
        for name, kind in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = KINDS[kind], link
            info.size = len(CONTENT) if kind == "file" else 0
            made.addfile(info, io.BytesIO(CONTENT))
    return stream.getvalue()


def tgz(entries: Entries) -> bytes:
    return tar(entries, "w:gz")


def pack(entries: Entries) -> bytes:
    """A zip file; other kinds by their Unix modes."""
    modes = {"symlink": stat.S_IFLNK, "device": stat.S_IFCHR, "pipe": stat.S_IFIFO}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for name, kind in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes.get(kind, stat.S_IFREG) | 0o777) << 16
            if kind == "folder":
                info = zipfile.ZipInfo(f"{name}/")
            made.writestr(info, b"" if kind == "folder" else CONTENT)
    return stream.getvalue()


MAKERS = {"tar": tar, "tgz": tgz, "zip": pack}
