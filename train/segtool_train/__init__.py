"""Training: networks, data layouts, recipes and the loop.

Every pixel a network is trained on comes from :mod:`segtool.preprocess`, as at inference.
"""
