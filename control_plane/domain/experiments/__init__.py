"""Reading a comparison of variants: pure functions of additive sufficient statistics, one module per question.

samples       what is kept per arm: count, mean, variance, covariance with a covariate; everything adds
ranking       AUC and average precision from counts by score and class
fixed         tests for one look at a size planned before: reports only
sequences     always-valid intervals, asymptotic: from about 50 events per arm on
betting       always-valid intervals, exact: bounded outcomes, from the first unit on
bayes         posterior reports
multiplicity  many metrics or variants at once
guardrails    "not worse by more than the margin", as a verdict with a sentence
srm           are the arms as large as they were meant to be
power         how many units, how long

The unit of assignment is the unit of analysis: every statistic counts a unit once. Nothing here accepts NaN, and what
cannot be computed is a ValueError.
"""
