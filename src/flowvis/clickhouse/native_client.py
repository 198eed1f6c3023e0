"""ClickHouse's native protocol: clickhouse-driver, with writers of our blocks and bounded answers.

The driver does the handshake, queries, errors and reading; blocks are written by us, in frames of
compressed bytes straight from the columns.
"""

import errno
import logging
import socket
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

from clickhouse_cityhash.cityhash import CityHash128
from clickhouse_driver import Client, errors
from clickhouse_driver.block import RowOrientedBlock
from clickhouse_driver.connection import Connection
from clickhouse_driver.reader import read_binary_bytes, read_binary_int32, read_binary_uint8
from clickhouse_driver.streams.compressed import CompressedBlockOutputStream
from clickhouse_driver.streams.native import BlockOutputStream
from clickhouse_driver.writer import write_binary_uint128

from flowvis.clickhouse.schema.lz4_blocks import lz4_blocks
from flowvis.clickhouse.schema.native_block import Block, frames
from flowvis.clickhouse.store import REJECTIONS
from flowvis.errors import StoreError
from flowvis.runtime.trust import trusting_each

# The driver logs with tracebacks what it also raises, and we report that.
logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)

_LZ4 = 0x82
_FRAME_HEADER = 9  # method and both sizes, which the compressed size includes
_CUSTOM_SERIALIZATION = 54454  # protocol revision


def _custom_serialization(stream: BlockOutputStream) -> bool:
    return bool(stream.context.server_info.used_revision >= _CUSTOM_SERIALIZATION)


class _PlainOutput(BlockOutputStream):  # type: ignore[misc]  # the driver has no types
    """Writes our blocks as they are, any other as the driver does."""

    def write(self, block: Block | RowOrientedBlock) -> None:
        if not isinstance(block, Block):
            super().write(block)
            return
        RowOrientedBlock().info.write(self.fout)
        for piece in frames(block.parts(custom_serialization=_custom_serialization(self))):
            self.fout.write(piece)
        self.fout.flush()


class _CompressedOutput(CompressedBlockOutputStream):  # type: ignore[misc]  # as above
    """Writes our blocks as LZ4 frames, each with its checksum, any other as the driver does."""

    def write(self, block: Block | RowOrientedBlock) -> None:
        if not isinstance(block, Block):
            super().write(block)
            return
        RowOrientedBlock().info.write(self.compressor)
        info = [(self.compressor.get_value(), 0)]
        pieces = block.pieces(custom_serialization=_custom_serialization(self))
        for packed, size in lz4_blocks(chain(info, pieces)):
            self._frame(packed, size)
        self.raw_fout.flush()

    def _frame(self, packed: bytes, size: int) -> None:
        sizes = (len(packed) + _FRAME_HEADER).to_bytes(4, "little") + size.to_bytes(4, "little")
        frame = bytes([_LZ4]) + sizes + packed
        write_binary_uint128(CityHash128(frame), self.raw_fout)
        self.raw_fout.write(frame)


class BoundedSocket:
    """A socket whose peer may send only so much until we are done with it, or send again.

    The driver keeps a text until it is whole, whatever its length.
    """

    def __init__(self, plain: socket.socket, most: int) -> None:
        self._socket = plain
        self._most = most
        self._received = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def recv_into(self, buffer: bytearray) -> int:
        """Receive; OSError where the answer is too long."""
        count = self._socket.recv_into(buffer)
        self._received += count
        if self._received > self._most:
            text = f"an answer of more than {self._most} bytes: is it ClickHouse?"
            raise OSError(errno.EMSGSIZE, text)  # the driver shows the second one
        return count

    def sendall(self, data: bytes | memoryview) -> None:
        """Send, after which another answer may come."""
        self.done()
        self._socket.sendall(data)

    def done(self) -> None:
        """What was received is used up: as much may come again."""
        self._received = 0


class BoundedConnection(Connection):  # type: ignore[misc]  # as above
    """The driver's connection with our block writers, and answers of bounded length."""

    def __init__(self, host: str, port: int | None, *, answer_bytes: int, **options: Any) -> None:
        self._answer_bytes = answer_bytes
        super().__init__(host, port, **options)

    def _create_socket(self, host: str, port: int) -> BoundedSocket:
        return BoundedSocket(super()._create_socket(host, port), self._answer_bytes)

    def _create_ssl_context(self, options: dict[str, Any]) -> ssl.SSLContext:
        context: ssl.SSLContext = super()._create_ssl_context(options)
        return trusting_each(context)

    def disconnect(self) -> None:
        """Close the socket, from another thread as well.

        A thread that waits for an answer then fails as where the server is gone, and closes it too.
        The driver's own takes away what the other one of the two is using.
        """
        opened, self.connected, self.is_query_executing = self.socket, False, False
        if opened is not None:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def receive_hello(self) -> None:
        """Read who the server is."""
        with _answers():
            super().receive_hello()

    def receive_packet(self) -> Any:
        """Read a part of an answer."""
        with _answers():
            return super().receive_packet()

    def receive_exception(self) -> errors.ServerException:
        """Read why the server gave up.

        It may quote a text of a record, which is anybody's; the driver takes UTF-8 alone.
        """
        code = read_binary_int32(self.fin)
        name, message, _ = (read_binary_bytes(self.fin).decode(errors="replace") for _ in range(3))
        nested = self.receive_exception() if read_binary_uint8(self.fin) else None
        said = message if name == "DB::Exception" else f"{name}. {message}"
        return errors.ServerException(said, code, nested=nested)

    def get_block_out_stream(self) -> BlockOutputStream:
        """Return what writes blocks."""
        if not self.compression:
            return _PlainOutput(self.fout, self.context)
        return _CompressedOutput(
            self.compressor_cls, self.compress_block_size, self.fout, self.context
        )


@contextmanager
def _answers() -> Iterator[None]:
    """Turn whatever the driver makes of bytes that are no answer into one of its errors.

    It decodes names, looks up types and unpacks numbers without a look at what they are.
    """
    try:
        yield
    except (errors.Error, OSError, EOFError):
        raise
    except Exception as error:
        text = f"no answer of ClickHouse: {type(error).__name__}: {error}"
        raise errors.NetworkError(text) from error


class NativeClient(Client):  # type: ignore[misc]  # as above
    """The driver's client over our connection, with an INSERT of one ready block."""

    def __init__(self, connection: Connection, settings: dict[str, Any]) -> None:
        self.own = connection
        super().__init__(connection.hosts[0][0], settings=settings)

    def get_connection(self) -> Connection:
        """Return the connection, however often the driver asks for another one."""
        self.connections = deque([self.own])
        return super().get_connection()

    def insert_block(self, sql: str, block: Block, query_id: str, settings: dict[str, Any]) -> None:
        """Send one block; it is stored when this returns."""
        with self.disconnect_on_error(sql, settings):
            self.connection.send_query(sql, query_id=query_id)
            self.connection.send_external_tables(None)
            self.receive_sample_block()
            self.connection.send_data(block)
            self.receive_profile_events()
            self.connection.send_data(RowOrientedBlock())
            self.receive_profile_events()
            self.receive_end_of_insert_query()


@contextmanager
def store_errors(name: str) -> Iterator[None]:
    """Turn what the driver raises into StoreError."""
    try:
        yield
    except errors.ServerException as error:
        text = str(error.message).split("Stack trace:", maxsplit=1)[0].strip()
        raise StoreError(
            f"{name}: {text} (code {error.code})",
            retryable=error.code not in REJECTIONS,
            code=error.code,
        ) from error
    except (errors.Error, OSError, EOFError) as error:
        text = str(error) or type(error).__name__
        raise StoreError(f"{name}: {text}", retryable=True) from error
