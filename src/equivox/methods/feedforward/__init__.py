"""Methods that change features, fusion or prediction."""
