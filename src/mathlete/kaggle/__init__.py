"""The contest on Kaggle: the organiser's protocol from both sides, what answers over a whole contest, and rehearsals.

`protocol` and `payload` speak the wire format, `entrant` answers, `server` serves it, `gateway` asks as the organiser
does, `rehearsal` lets both play a contest with `faults`, and `bundle` writes what a notebook without internet needs.
"""
