from flowvis.native.reference.conntrack import EntryDecoder as EntryDecoder
