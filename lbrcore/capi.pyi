from typing import Any

#: ``PyCapsule`` named ``lbrcore._C_API`` that holds the ``lbrcore_api`` table of ``lbrcore.h``.
_C_API: Any
