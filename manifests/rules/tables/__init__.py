"""The rules of each component of a platform, one file for each."""
