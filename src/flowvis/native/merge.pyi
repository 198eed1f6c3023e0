from flowvis.native.reference.merge import Merger as Merger
