from flowvis.native.merge_reference import Merger as Merger
