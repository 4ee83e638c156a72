"""Export: a training run becomes one self-describing model file, checked against what was trained."""
