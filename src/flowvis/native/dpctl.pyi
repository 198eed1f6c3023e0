from flowvis.native.reference.dpctl import LineDecoder as LineDecoder
