from flowvis.native.reference.lz4 import pack_columns as pack_columns
