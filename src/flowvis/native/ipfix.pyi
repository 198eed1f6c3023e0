from flowvis.native.ipfix_reference import RecordDecoder as RecordDecoder
from flowvis.native.ipfix_reference import RecordEncoder as RecordEncoder
from flowvis.native.ipfix_reference import RecordTarget as RecordTarget
