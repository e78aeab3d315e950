"""Methods that change the losses."""
