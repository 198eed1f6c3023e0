"""The compiled leaves, each beside a plain-Python reference that has the same interface.

FLOWVIS_NATIVE chooses at import: `require` fails where a leaf is not compiled, `never` takes the
references, `auto` (the default) takes what is there. `COMPILED` says what was taken.
"""

import importlib
import importlib.util
import os
from types import ModuleType

from flowvis import strings as _strings_reference
from flowvis.native.reference import conntrack as _conntrack_reference
from flowvis.native.reference import flows as _flows_reference
from flowvis.native.reference import ipfix as _ipfix_reference
from flowvis.native.reference import merge as _merge_reference

MODES = ("require", "never", "auto")


def _mode() -> str:
    mode = os.environ.get("FLOWVIS_NATIVE", "auto")
    if mode not in MODES:
        raise ImportError(f"FLOWVIS_NATIVE={mode!r}: use {', '.join(MODES)}")
    return mode


def _leaf(name: str, reference: ModuleType) -> ModuleType:
    """Return the compiled module of a leaf, or its reference, as FLOWVIS_NATIVE says."""
    full = f"{__name__}.{name}"
    if MODE == "never":
        return reference
    if importlib.util.find_spec(full) is None:
        if MODE == "require":
            raise ImportError(
                f"{full} is not compiled and FLOWVIS_NATIVE=require: "
                "install a C compiler and run pip install again"
            )
        return reference
    return importlib.import_module(full)


MODE = _mode()
_strings = _leaf("strings", _strings_reference)
_conntrack = _leaf("conntrack", _conntrack_reference)
_flows = _leaf("flows", _flows_reference)
_merge = _leaf("merge", _merge_reference)
_ipfix = _leaf("ipfix", _ipfix_reference)

StringTable = _strings.StringTable
EntryDecoder = _conntrack.EntryDecoder
FlowIndex = _flows.FlowIndex
pack_keys = _flows.pack_keys
order_endpoints = _flows.order_endpoints
Merger = _merge.Merger
RecordDecoder = _ipfix.RecordDecoder
RecordEncoder = _ipfix.RecordEncoder
RecordTarget = _ipfix.RecordTarget

_LEAVES = (_strings, _conntrack, _flows, _ipfix, _merge)
COMPILED = all(
    leaf.__name__.startswith(__name__) and (leaf.__file__ or "").endswith(".so") for leaf in _LEAVES
)
