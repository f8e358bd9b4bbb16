"""Orders that the tests of blocks and networks run through."""

# Whether a bias stays by default: only a norm that directly follows makes it redundant.
KEEPS_BIAS = {
    "before": False,
    "act-linear-norm": False,
    "after": True,
    "none": True,
    "norm-linear-act": True,
    "norm-act-linear": True,
}
