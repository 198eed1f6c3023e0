from flowvis.native.reference.strings import StringTable as StringTable
