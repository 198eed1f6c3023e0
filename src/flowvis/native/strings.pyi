from flowvis.strings import StringTable as StringTable
