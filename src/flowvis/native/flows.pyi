from flowvis.native.reference.flows import FlowIndex as FlowIndex
from flowvis.native.reference.flows import pack_keys as pack_keys
