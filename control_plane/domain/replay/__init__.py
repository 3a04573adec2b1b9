"""What a version would have answered on logged traffic, beside the one that answers it. Pure.

`sums` folds rows in constant memory, `intervals` says how sure a figure is, `bounds` what can be said where labels
depend on the decision, `read` makes the report of it, `gate` what follows. `report` and `gate` need no numpy.
"""
