"""The leaves: the loops that decide the speed, compiled; `contract` has what they share.

A leaf that is not compiled is an error that says how to build it. FLOWVIS_NATIVE=never takes the
plain-Python references instead, slower by one to two orders: it is for tests. `COMPILED` says which
run.
"""

import importlib
import importlib.util
import os
from types import ModuleType
from typing import TYPE_CHECKING

MODES = ("require", "never")


def _mode() -> str:
    mode = os.environ.get("FLOWVIS_NATIVE", "require")
    if mode not in MODES:
        raise ImportError(f"FLOWVIS_NATIVE={mode!r}: use {' or '.join(MODES)}")
    return mode


def _leaf(name: str) -> ModuleType:
    """Return the compiled module of a leaf, or its reference, as FLOWVIS_NATIVE says."""
    full = f"{__name__}.{name}"
    if MODE == "never":
        return importlib.import_module(f"{__name__}.reference.{name}")
    if importlib.util.find_spec(full) is None:
        raise ImportError(
            f"{full} is not compiled: install a C compiler and python3-dev, then run "
            "`pip install .` (in a checkout: `pip install -e .`) again; FLOWVIS_NATIVE=never runs "
            "the slow references, for tests"
        )
    return importlib.import_module(full)


MODE = _mode()
COMPILED = MODE == "require"

if TYPE_CHECKING:  # a leaf and its reference are of one interface
    from flowvis.native.reference.codes import distinct as distinct
    from flowvis.native.reference.conntrack import EntryDecoder as EntryDecoder
    from flowvis.native.reference.dpctl import LineDecoder as LineDecoder
    from flowvis.native.reference.flows import FlowIndex as FlowIndex
    from flowvis.native.reference.flows import pack_keys as pack_keys
    from flowvis.native.reference.halves import correlation_keys as correlation_keys
    from flowvis.native.reference.halves import made_of as made_of
    from flowvis.native.reference.halves import order_endpoints as order_endpoints
    from flowvis.native.reference.halves import sides as sides
    from flowvis.native.reference.ipfix import RecordDecoder as RecordDecoder
    from flowvis.native.reference.ipfix import RecordEncoder as RecordEncoder
    from flowvis.native.reference.ipfix import RecordTarget as RecordTarget
    from flowvis.native.reference.lz4 import pack_columns as pack_columns
    from flowvis.native.reference.merge import Merger as Merger
    from flowvis.native.reference.strings import StringTable as StringTable
    from flowvis.native.tls import LibraryReader as LibraryReader
    from flowvis.native.tls import OpenSsl as OpenSsl
else:
    StringTable = _leaf("strings").StringTable
    distinct = _leaf("codes").distinct
    EntryDecoder = _leaf("conntrack").EntryDecoder
    LineDecoder = _leaf("dpctl").LineDecoder
    FlowIndex = _leaf("flows").FlowIndex
    pack_keys = _leaf("flows").pack_keys
    sides, correlation_keys = _leaf("halves").sides, _leaf("halves").correlation_keys
    made_of, order_endpoints = _leaf("halves").made_of, _leaf("halves").order_endpoints
    pack_columns = _leaf("lz4").pack_columns
    Merger = _leaf("merge").Merger
    RecordDecoder = _leaf("ipfix").RecordDecoder
    RecordEncoder = _leaf("ipfix").RecordEncoder
    RecordTarget = _leaf("ipfix").RecordTarget
    if COMPILED:  # its reference is in `flowvis.transport.plaintext`, which does without at need
        OpenSsl, LibraryReader = _leaf("tls").OpenSsl, _leaf("tls").LibraryReader
