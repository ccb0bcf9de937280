from lbrcore.lbr cimport lbr_config

cdef lbr_config config_from(object config) except *
