from flowvis.native.conntrack_reference import EntryDecoder as EntryDecoder
