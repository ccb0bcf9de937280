"""What the control registers make of the facility; `LbrState` is the public form."""
