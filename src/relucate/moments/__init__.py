"""Statistics of values that stream by, channel by channel, in memory that doesn't grow.

`running` has exact moments, `sample` an unbiased sample of positions, `channels` both together,
`claims` what they say about norms and activations. NumPy and SciPy only.
"""
