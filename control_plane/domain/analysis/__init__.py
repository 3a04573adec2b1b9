"""Whether a candidate may go on, by evidence. Pure.

plan        what is measured, with which margins and limits; fixed before the start
comparison  from sufficient statistics to one measurement: a verdict, a sentence, the numbers
judge       all measurements of one look, folded into one verdict and what follows from it
forecast    how long a plan would take to decide at the traffic seen, before it starts
"""
