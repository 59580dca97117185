"""All selectors by name. Knows the classes and how each name's is made; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from mathlete.cic.cluster_votes import Cic, CicClusterMode, CicRefined, NuVote, ProximityVote
from mathlete.cic.deepconf import FEATURES, DeepConf
from mathlete.cic.entropy_votes import Aimo3Entropy, Aimo3Second
from mathlete.cic.evidence_votes import GenSelect, VerifiedVote
from mathlete.cic.majority import Majority
from mathlete.cic.majority_variants import MajorityLarger, MajorityNull, MajorityRandom
from mathlete.cic.ncd_vote import NcdVote
from mathlete.cic.prm_votes import AGGREGATIONS, PrmVote
from mathlete.cic.triad_selector import TriadSelector
from mathlete.cic.value_votes import Huikang, ImaginationResearch
from mathlete.core.errors import InputError
from mathlete.core.protocols import Selector

SELECTORS: Mapping[str, Callable[[], Selector]] = {
    "triad": TriadSelector,
    "majority": Majority,
    "majority_random": MajorityRandom,
    "majority_larger": MajorityLarger,
    "majority_null": MajorityNull,
    "aimo3_entropy": Aimo3Entropy,
    "aimo3_second": Aimo3Second,
    "huikang": Huikang,
    "imagination_research": ImaginationResearch,
    **{name: partial(DeepConf, name) for name in FEATURES},
    **{name: partial(PrmVote, name) for name in AGGREGATIONS},
    "verified_vote": VerifiedVote,
    "genselect": GenSelect,
    "cic": Cic,
    "cic_cluster_mode": CicClusterMode,
    "cic_refined": CicRefined,
    "nu_vote": NuVote,
    "ncd_vote": NcdVote,
    "proximity_vote": ProximityVote,
}

CALIBRATED = frozenset({"triad"})
"""Rules whose confidence is a fitted chance of being right, not only a measure of agreement."""


def make_selector(name: str) -> Selector:
    """The selector of that name, with its default settings.

    Raises:
        InputError: there is none; the message lists them.
    """
    if name not in SELECTORS:
        raise InputError(f"there is no selector {name!r}; there are {', '.join(SELECTORS)}")
    return SELECTORS[name]()
