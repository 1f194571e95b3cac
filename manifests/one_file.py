"""Endpoints that consist of one file."""

import posixpath

from manifests.pieces import Pieces

_KINDS = ("Deployment", "StatefulSet", "InferenceService", "LLMInferenceService", "Model", "HelmRelease", "Application")


def is_one_file(pieces: Pieces) -> bool:
    """Return whether an endpoint has its own file with its name."""
    base = posixpath.basename(pieces.home)
    is_own = pieces.fields is None and pieces.form in _KINDS and pieces.name in base
    return is_own and all(path == pieces.home or path in pieces.candidate.files for path in pieces.files)
