from flowvis.native.reference.flows import FlowIndex as FlowIndex
from flowvis.native.reference.flows import order_endpoints as order_endpoints
from flowvis.native.reference.flows import pack_keys as pack_keys
