from flowvis.native.reference.rates import explain as explain
