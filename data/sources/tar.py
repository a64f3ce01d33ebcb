"""A tar reader that says where an archive is damaged.

Python's own takes a broken header, a hole of zeros or the end of the file for the end of the
archive. An archive ends with blocks of zeros and nothing behind them, unless another archive was
joined to it (``cat a.tar b.tar``), which begins at a whole record.
"""

from __future__ import annotations

import tarfile
from typing import IO, Any, Self, cast

from data.sources.opening import Inflated

_END = 2 * tarfile.BLOCKSIZE


class _Member(tarfile.TarInfo):
    """A header, and what is wrong where there should be one."""

    @classmethod
    def fromtarfile(cls, tarfile_: Any) -> Self:
        """Read the next header; ``tarfile`` calls this."""
        try:
            member = super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            tarfile_.zeros += tarfile.BLOCKSIZE
            raise  # a block of zeros: read on, something may follow
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            if tarfile_.zeros < _END:
                raise tarfile.ReadError("it ends without its end blocks") from None
            raise
        except tarfile.HeaderError as error:
            at = tarfile_.fileobj.tell()
            raise tarfile.ReadError(f"no header before byte {at:,} ({error})") from error
        if tarfile_.zeros:
            joined = member.offset % tarfile.RECORDSIZE == 0 and tarfile_.zeros >= _END
            if not joined:
                raise tarfile.ReadError(f"data behind its end, at byte {member.offset:,}")
            tarfile_.zeros = 0
        return member


class Archive(tarfile.TarFile):
    """A tar, plain or compressed, that is read as a stream."""

    tarinfo = _Member
    zeros = 0  # bytes of them since the last member

    @classmethod
    def read(cls, file: Inflated) -> Self:
        """Open an archive; iterating over it raises ``tarfile.ReadError`` where it is damaged."""
        return cls.open(fileobj=cast("IO[bytes]", file), mode="r|*", ignore_zeros=True)
