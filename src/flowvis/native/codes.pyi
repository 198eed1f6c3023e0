from flowvis.native.reference.codes import distinct as distinct
