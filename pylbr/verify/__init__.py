"""Every interleaving of host and guests, checked against what each owner must see."""
