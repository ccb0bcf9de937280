"""pylbr: last-branch records without the hardware."""
