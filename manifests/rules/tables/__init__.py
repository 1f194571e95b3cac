"""The rules of the model contract, one file per component of a platform."""
