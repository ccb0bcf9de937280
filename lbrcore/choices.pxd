# Behaviour that the manual leaves undefined.  Each constant records one choice; change it here
# and rebuild: the core and its Python twin both follow.  The reasons stand in choices.pyx.
cdef enum:
    OTHER_BRANCH_TYPE = 8
    RESTART_KEEPS_CYCLES = 0
    POP_RESTARTS_CYCLES = 0
    CALL_STACK_RECORDS_OTHERS = 0
    EMPTY_STACK_CLEARS_LER = 0
    DEPTH_WRITE_CLEARS_LER = 0
