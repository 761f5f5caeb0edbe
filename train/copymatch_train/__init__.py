"""copymatch_train: the training recipe behind copymatch's default model.

One module per part of the recipe; `python -m copymatch_train.<module> --help` for the commands
(pictures, fit, export, background, calibrate, evaluate).
"""
