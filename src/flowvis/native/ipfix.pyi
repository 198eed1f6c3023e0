from flowvis.native.reference.ipfix import RecordDecoder as RecordDecoder
from flowvis.native.reference.ipfix import RecordEncoder as RecordEncoder
from flowvis.native.reference.ipfix import RecordTarget as RecordTarget
