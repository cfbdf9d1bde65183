"""Payloads as file objects."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from dekseal import _dekseal
from dekseal._dekseal import EncryptionContext

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class PayloadReader(io.RawIOBase):
    """Decrypts a payload: a readable file object, and seekable if the file below is.

    A read returns only bytes that were verified. That the payload is whole is known only at the end of the file, or
    after a seek from the end.
    """

    mode = "rb"

    def __init__(self, raw: Any, name: Any) -> None:
        self._raw = raw
        self._position = 0
        self.name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._raw.seekable)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        data: bytes = self._raw.read(size)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        data: bytes = self._raw.readall()
        self._position += len(data)
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count: int = self._raw.readinto(memoryview(buffer).cast("B"))
        self._position += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if not self.seekable():
            raise io.UnsupportedOperation("the file below is not seekable")
        self._position = self._raw.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        self._check_open()
        return self._position

    def size(self) -> int:
        """The length of the data. Verifies the last segment."""
        position = self.tell()
        try:
            return self.seek(0, io.SEEK_END)
        finally:
            self.seek(position)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a payload reader cannot be pickled or copied")


class PayloadWriter(io.RawIOBase):
    """Encrypts a payload: a writable file object.

    `close` writes the last segment, without which the payload does not decrypt. A `with` block that ends with an
    exception does not write it, and neither does the garbage collector: a payload that was cut off must not look whole.
    """

    mode = "wb"

    def __init__(self, raw: Any, name: Any) -> None:
        self._raw = raw
        self._position = 0
        self.name = name

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        self._check_open()
        count: int = self._raw.write(data)
        self._position += count
        return count

    def flush(self) -> None:
        # Closing a file object flushes it. By then the last segment was written.
        if not self.closed and self._raw is not None:
            self._raw.flush()

    def tell(self) -> int:
        self._check_open()
        return self._position

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    def close(self) -> None:
        """Writes the last segment, and closes the file."""
        raw, self._raw = self._raw, None
        try:
            if raw is not None:
                raw.finish()
        finally:
            super().close()

    def abort(self) -> None:
        """Closes the file without the last segment: what was written does not decrypt."""
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.abort()
        super().close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        if getattr(self, "_raw", None) is not None:
            warnings.warn("a payload was never closed, so it does not decrypt", ResourceWarning, 2, self)
            self.abort()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a payload writer cannot be pickled or copied")


class Engine(_dekseal.Engine):
    __doc__ = _dekseal.Engine.__doc__
    __slots__ = ()

    @overload
    def open(
        self, file: Any, mode: Literal["rb"], *, key_id: str, context: Mapping[str, str] | EncryptionContext
    ) -> PayloadReader: ...

    @overload
    def open(
        self, file: Any, mode: Literal["wb", "xb"], *, key_id: str, context: Mapping[str, str] | EncryptionContext
    ) -> PayloadWriter: ...

    def open(
        self, file: Any, mode: str, *, key_id: str, context: Mapping[str, str] | EncryptionContext
    ) -> PayloadReader | PayloadWriter:
        """Opens a payload like a file: `"rb"` decrypts, `"wb"` and `"xb"` encrypt.

        `file` is a path or a binary file object. A file object is used from where it is, or from its start if it is
        seekable and read, and it is not closed.
        """
        name = os.fspath(file) if isinstance(file, (str, bytes, os.PathLike)) else getattr(file, "name", file)
        if isinstance(file, bytes):
            file = os.fsdecode(file)
        if mode == "rb":
            return PayloadReader(self._reader(file, key_id, context), name)
        if mode in ("wb", "xb"):
            return PayloadWriter(self._writer(file, key_id, context, mode == "xb"), name)
        raise ValueError(f"mode must be 'rb', 'wb' or 'xb', not {mode!r}")
