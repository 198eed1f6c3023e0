from flowvis.native.flows_reference import FlowIndex as FlowIndex
from flowvis.native.flows_reference import pack_keys as pack_keys
