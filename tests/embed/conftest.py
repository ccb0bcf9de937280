"""Which of these tests a machine can have."""

import os

# CI has every peer that a package brings; this one must be built by hand.
if os.environ.get("CI") == "true" and "PYLBR_KVM_UNIT_TESTS" not in os.environ:
    collect_ignore = ["test_third_party.py"]
