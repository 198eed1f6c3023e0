"""The netlink socket of the kernel's packet log: one for each group."""

import errno
import os
import socket
import struct
from typing import Any, ClassVar

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, nla
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_ULOG, nfgen_msg
from pyroute2.netlink.nfnetlink.nfctsocket import AsyncNFCTSocket

from flowvis.denials.headers import HEAD_BYTES
from flowvis.errors import SystemRefused
from flowvis.runtime.netlink import read_waiting, set_receive_bytes

BATCH_BYTES = 32 << 10
"""What the kernel gathers before it sends: some 150 packets, in memory that it easily finds."""

BATCH_PACKETS = 128
BATCH_DELAY = 10  # hundredths of a second that a packet waits for others

MESSAGE_BYTES = 2 * BATCH_BYTES
"""What it sends at once at most: it fills what it got, and it gets a power of two above that."""

READ_BYTES = 8 * BATCH_BYTES
"""Taken at once: a thousand packets."""

_BIND, _UNBIND = 1, 2  # NFULNL_CFG_CMD_*
_COPY_PACKET = 2  # NFULNL_COPY_PACKET
_SEQUENCE, _CONNECTION = 1, 4  # NFULNL_CFG_F_SEQ, NFULNL_CFG_F_CONNTRACK
_CONFIGURATION = (
    ("NFULA_CFG_CMD", _BIND),
    ("NFULA_CFG_MODE", {"copy_range": HEAD_BYTES, "copy_mode": _COPY_PACKET, "_pad": 0}),
    ("NFULA_CFG_NLBUFSIZ", BATCH_BYTES),
    ("NFULA_CFG_TIMEOUT", BATCH_DELAY),
    ("NFULA_CFG_QTHRESH", BATCH_PACKETS),
)
_CONFIG = NFNL_SUBSYS_ULOG << 8 | 1  # NFULNL_MSG_CONFIG
_ANSWER = struct.Struct("=4xH10xi")  # struct nlmsghdr, then struct nlmsgerr's error
_ANSWER_S = 5.0  # the kernel answers at once


class _ConfigMessage(nfgen_msg):  # type: ignore[misc]  # pyroute2 has no types
    """A message of NFULNL_MSG_CONFIG."""

    prefix = "NFULA_CFG_"
    nla_map = (
        ("NFULA_CFG_UNSPEC", "none"),
        ("NFULA_CFG_CMD", "uint8"),
        ("NFULA_CFG_MODE", "mode"),
        ("NFULA_CFG_NLBUFSIZ", "be32"),
        ("NFULA_CFG_TIMEOUT", "be32"),
        ("NFULA_CFG_QTHRESH", "be32"),
        ("NFULA_CFG_FLAGS", "be16"),
    )

    class mode(nla):  # type: ignore[misc]  # noqa: N801  the name in nla_map
        """struct nfulnl_msg_config_mode."""

        fields: ClassVar = (("copy_range", ">I"), ("copy_mode", "B"), ("_pad", "B"))


class LogSocket:
    """Hears the packets that are logged to one group of this network namespace."""

    def __init__(self, group: int, receive_bytes: int) -> None:
        """Bind to the group; SystemRefused if another program has it."""
        self.group = group
        self._buffer = memoryview(bytearray(READ_BYTES))
        try:
            self._socket: socket.socket = AsyncNFCTSocket(rcvbuf=receive_bytes).setup_socket()
        except OSError as error:
            raise refused(group, error.errno or 0) from error
        set_receive_bytes(self._socket, receive_bytes)
        try:
            self._socket.settimeout(_ANSWER_S)
            self._bind()
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def unbind(self) -> None:
        """Let go of the group: the kernel sends what it has gathered, and nothing more."""
        self._socket.send(_message(self.group, ("NFULA_CFG_CMD", _UNBIND)))

    def close(self) -> None:
        """Close the socket; what the kernel has gathered for it is lost."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        return self._socket.fileno()

    def read(self) -> tuple[memoryview, int]:
        """Return what has arrived, up to READ_BYTES, and how often the kernel had no room."""
        filled, overruns = read_waiting(self._socket, self._buffer, MESSAGE_BYTES)
        return self._buffer[:filled], overruns

    def _bind(self) -> None:
        refusal = self._configure(_SEQUENCE | _CONNECTION)
        if refusal == errno.EOPNOTSUPP:  # nf_conntrack_netlink is not there
            refusal = self._configure(_SEQUENCE)
        if refusal:
            raise refused(self.group, refusal)

    def _configure(self, flags: int) -> int:
        """Bind with these flags; the errno of the answer, 0 if all is well."""
        try:
            self._socket.send(_message(self.group, *_CONFIGURATION, ("NFULA_CFG_FLAGS", flags)))
            while (answer := _answer(self._socket.recv(MESSAGE_BYTES))) is None:
                pass  # packets that were logged meanwhile: their numbers will be missing
        except OSError as error:
            raise refused(self.group, error.errno or 0) from error
        return answer


def refused(group: int, error: int) -> SystemRefused:
    """What the kernel's refusal means for who runs us."""
    remedy = {
        errno.EPERM: "only one program can: stop the other one or let the rules log to another "
        "group (denied.nflogGroups); else CAP_NET_ADMIN is missing",
        errno.EPROTONOSUPPORT: "run `modprobe nfnetlink_log`",
        errno.EINVAL: "run `modprobe nfnetlink_log`",
    }.get(error, "the next attempt may do better")
    return SystemRefused(f"NFLOG group {group} cannot be observed: {os.strerror(error)}: {remedy}")


def _answer(data: bytes) -> int | None:
    """Return the errno in the kernel's answer, None if these bytes are no answer."""
    kind, error = _ANSWER.unpack_from(data)
    return -error if kind == NLMSG_ERROR else None


def _message(group: int, *attributes: tuple[str, Any]) -> bytes:
    message = _ConfigMessage()
    message["header"] = {
        "type": _CONFIG,
        "flags": NLM_F_REQUEST | NLM_F_ACK,
        "sequence_number": 1,
        "pid": 0,
    }
    message["nfgen_family"] = socket.AF_UNSPEC
    message["version"] = 0
    message["res_id"] = group
    message["attrs"] = list(attributes)
    message.encode()
    return bytes(message.data)
