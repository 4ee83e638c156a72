"""Training: networks, data layouts, recipes and the loop. Fills its cache through :mod:`segtool.preprocess`."""
