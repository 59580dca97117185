"""Drafts from the request's own prompt and output (prompt lookup): text, and code above all, repeats itself."""

from __future__ import annotations

from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.speculative.sibling_suffix import SiblingSuffixProposer


class NgramProposer(SiblingSuffixProposer):
    """A `SiblingSuffixProposer` for which every request is without siblings."""

    def _key(self, request: EngineRequest) -> EngineRequest:
        return request
