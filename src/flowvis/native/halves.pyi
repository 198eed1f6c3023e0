from flowvis.native.reference.halves import correlation_keys as correlation_keys
from flowvis.native.reference.halves import made_of as made_of
from flowvis.native.reference.halves import order_endpoints as order_endpoints
from flowvis.native.reference.halves import sides as sides
