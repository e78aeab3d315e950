"""Methods that change the samples."""
